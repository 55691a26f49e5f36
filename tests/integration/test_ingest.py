"""Files to rows: scans, renames, deletions, drives that vanish, and things that are no files."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from acclimate.store import buffer, forget, ingest, retire, sources, walk
from acclimate.store.db import Db
from acclimate.store.errors import NotFound, SourceError
from acclimate.store.files import Home
from acclimate.store.scan import ScanReport, scan

CANARY = "zanzibar-canary-5713"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "notes"
    root.mkdir()
    return root


@pytest.fixture
def notes(db: Db, root: Path) -> sources.Source:
    return sources.add_source(db, root, "notes")


def line(question: str, reply: str) -> str:
    return json.dumps({"instruction": question, "output": reply})


def age(path: Path, seconds: float = 60) -> None:
    """Make a file look old enough for the fast path."""
    found = path.stat()
    os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns - int(seconds * 1e9)))


def paths(db: Db, state: str = "ok") -> list[str]:
    return sorted(d.path for d in sources.documents(db, state=state))  # type: ignore[arg-type]


def texts(db: Db) -> list[str]:
    return [r["text"] for r in db.read().execute("SELECT text FROM chunks ORDER BY id").fetchall()]


def taken_back(db: Db, home: Home, *, dry_run: bool = False, **wanted: Any) -> forget.Forgotten:
    """Forgets as the daemon does, and clears the files."""
    done = forget.forget(db, forget.Wanted(**wanted), home.chat_history, dry_run=dry_run)
    if not dry_run:
        retire.clear(db, home, lambda: None)
    return done


def on_disk(home: Home, needle: str) -> bool:
    return any(needle.encode() in p.read_bytes() for p in home.root.iterdir() if p.is_file())


def test_a_scan_follows_the_folder(db: Db, root: Path, notes: sources.Source) -> None:
    (root / "deep").mkdir()
    for name in ("a.md", "b.md", "deep/c.md"):
        (root / name).write_text(f"about {name}")
        age(root / name)
    assert scan(db, notes) == ScanReport(added=3)
    assert scan(db, notes) == ScanReport(unchanged=3)
    (root / "a.md").write_text("about a.md, but longer")
    (root / "b.md").unlink()
    (root / "d.md").write_text("about d.md")
    assert scan(db, notes) == ScanReport(added=1, changed=1, unchanged=1, gone=1)
    assert paths(db) == ["a.md", "d.md", "deep/c.md"]
    assert sorted(texts(db)) == ["about a.md, but longer", "about d.md", "about deep/c.md"]
    (root / "b.md").write_text("about b.md")
    assert scan(db, notes).added == 1
    assert paths(db, "gone") == []


def test_same_size_and_time_is_looked_at_again_while_it_is_young(
    db: Db, root: Path, notes: sources.Source
) -> None:
    path = root / "a.md"
    path.write_text("one")
    scan(db, notes)
    times = path.stat()
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert scan(db, notes).changed == 1
    assert texts(db) == ["two"]


def test_a_rename_keeps_the_vectors(db: Db, root: Path, notes: sources.Source) -> None:
    for name in ("a.md", "b.md"):
        (root / name).write_text(f"about {name}")
    scan(db, notes)
    with db.write() as conn:
        conn.execute("UPDATE chunks SET vector = x'00000000'")
    (root / "sub").mkdir()
    (root / "a.md").rename(root / "sub" / "moved.md")
    assert scan(db, notes).renamed == 1
    (root / "b.md").rename(root / "c.md")
    assert ingest.ingest_file(db, notes, "c.md").outcome == "renamed"  # as an event would
    assert ingest.ingest_file(db, notes, "b.md").outcome == "unchanged"  # nothing left to do
    assert paths(db) == ["c.md", "sub/moved.md"]
    kept = db.read().execute("SELECT count(*) FROM chunks WHERE vector IS NOT NULL").fetchone()
    assert kept[0] == 2
    # A copy is no rename.
    (root / "copy.md").write_text("about b.md")
    assert scan(db, notes).added == 1


def test_a_changed_file_keeps_the_vectors_of_its_unchanged_chunks(
    db: Db, root: Path, notes: sources.Source
) -> None:
    parts = [f"# Part {n}\n\n{f'sentence {n}. ' * 30}\n" for n in range(3)]
    (root / "a.md").write_text("\n".join(parts))
    scan(db, notes)
    with db.write() as conn:
        conn.execute("UPDATE chunks SET vector = x'00000000'")
    parts.insert(0, "# New\n\n" + "new sentence. " * 30)
    (root / "a.md").write_text("\n".join(parts))
    scan(db, notes)
    rows = (
        db.read()
        .execute("SELECT text, start_line, vector IS NULL AS fresh FROM chunks ORDER BY ordinal")
        .fetchall()
    )
    assert [row["fresh"] for row in rows] == [1, 0, 0, 0]
    lines = (root / "a.md").read_text().split("\n")
    assert [lines[row["start_line"] - 1] for row in rows] == [
        "# New",
        "# Part 0",
        "# Part 1",
        "# Part 2",
    ]


def test_a_missing_root_is_no_deletion(db: Db, root: Path, notes: sources.Source) -> None:
    (root / "a.md").write_text("about a")
    scan(db, notes)
    away = root.rename(root.with_name("away"))
    assert scan(db, notes) == ScanReport(missing=True)
    assert sources.get_source(db, notes.id).state == "missing"
    assert ingest.ingest_file(db, notes, "a.md").outcome == "unreachable"
    # A link in its place is not the folder either.
    root.symlink_to(away)
    assert scan(db, notes).missing
    root.unlink()
    assert paths(db) == ["a.md"]
    away.rename(root)
    assert scan(db, notes).unchanged == 1
    assert sources.get_source(db, notes.id).state == "ok"


def test_an_empty_mount_point_is_no_deletion(db: Db, root: Path, notes: sources.Source) -> None:
    (root / "a.md").write_text("about a")
    scan(db, notes)
    with db.write() as conn:  # as if it had been read from a drive that is not mounted now
        conn.execute("UPDATE sources SET device = device + 1")
    (root / "a.md").unlink()
    (root / ".keep").touch()
    assert scan(db, notes).missing
    assert paths(db) == ["a.md"]
    # The same drive under a new number is taken at its word.
    (root / "a.md").write_text("about a")
    (root / "b.md").write_text("about b")
    assert not scan(db, notes).missing
    (root / "b.md").unlink()
    assert scan(db, notes).gone == 1


def test_a_lost_mount_below_a_source_is_no_deletion(
    db: Db, root: Path, notes: sources.Source
) -> None:
    (root / "usb").mkdir()
    (root / "usb" / "a.md").write_text("about a")
    scan(db, notes)
    with db.write() as conn:
        conn.execute("UPDATE documents SET device = 1")
    (root / "usb" / "a.md").unlink()
    assert scan(db, notes).unreachable == 1
    assert paths(db) == ["usb/a.md"]


def test_an_unreadable_folder_is_no_deletion(
    db: Db, root: Path, notes: sources.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "a.md").write_text("about a")
    scan(db, notes)

    def deny(folder: int, name: str) -> int:
        raise PermissionError(13, "Permission denied")  # root would be let in by chmod

    monkeypatch.setattr(walk, "open_below", deny)
    assert scan(db, notes).unreachable == 1
    assert paths(db) == ["sub/a.md"]


def test_a_read_that_fails_keeps_what_was_read(
    db: Db, root: Path, notes: sources.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a.md").write_text("about a")
    scan(db, notes)

    def fail(fd: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    (root / "a.md").write_text("about a, later")
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        assert scan(db, notes).refused == 1
    assert texts(db) == ["about a"]
    assert scan(db, notes).changed == 1
    assert texts(db) == ["about a, later"]


def test_nothing_from_outside_gets_in_and_nothing_hangs(
    db: Db, home: Home, tmp_path: Path, root: Path, notes: sources.Source
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text(CANARY)
    (root / "link.md").symlink_to(outside / "secret.md")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "fifo.md")
    with (root / "zeros.md").open("wb") as file:
        file.truncate(4 << 30)
    (root / "nul.md").write_bytes(b"\0" * 100)
    (root / "old.txt").write_bytes(b"caf\xe9")
    Path(os.fsdecode(bytes(root) + b"/bad-\xff")).mkdir()
    (root / "good.md").write_text("good")
    report = scan(db, notes)
    assert (report.added, report.refused) == (1, 8)
    reasons = {d.path: d.reason for d in sources.documents(db, state="refused")}
    assert reasons == {
        "link.md": "a symbolic link, not followed",
        "folder": "a symbolic link, not followed",
        "loop": "a symbolic link, not followed",
        "fifo.md": "not a regular file",
        "zeros.md": "larger than 4 MB",
        "nul.md": "binary: a NUL at character 1",
        "old.txt": "binary, or text in an old encoding: no UTF-8 at byte 4",
        "bad-\\xff": "its name is not UTF-8",
    }
    assert not on_disk(home, CANARY)
    (root / "nul.md").write_text("words now")
    assert ingest.ingest_file(db, notes, "nul.md").outcome == "changed"


def test_a_file_that_is_no_longer_text_leaves_retrieval(
    db: Db, root: Path, notes: sources.Source
) -> None:
    (root / "a.md").write_text("about a")
    scan(db, notes)
    (root / "a.md").write_bytes(b"\0\0")
    assert scan(db, notes).refused == 1
    assert texts(db) == []


def test_hidden_and_ignored_files_are_passed_over(db: Db, root: Path) -> None:
    source = sources.add_source(db, root, "notes", ["private/", "*.log"])
    taken = ["a.md", "keep.draft.md", "sub/b.md", "sub/build.md"]
    left = [
        ".hidden.md",
        ".git/config",
        "private/x.md",
        "sub/private/x.md",
        "x.log",
        "a.md~",
        "x.draft.md",
        "sub/out/x.md",
        "node_modules/x/readme.md",
    ]
    for name in [*taken, *left]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text("*.draft.md\n!keep.draft.md\n!\n# a comment\n")
    (root / "sub" / ".gitignore").write_text("/out/\n")
    scan(db, source)
    assert paths(db) == taken
    rules = walk.Ignore(root, [*walk.DEFAULT_IGNORE, *source.patterns])
    assert not any(rules.skips(name) for name in taken)
    assert all(rules.skips(name) for name in left)
    # A pattern that comes later takes the file out again.
    (root / ".gitignore").write_text("*.md\n!a.md\n")
    assert scan(db, source).gone == 3
    with pytest.raises(ValueError, match=r"\.gitignore pattern"):
        sources.add_source(db, root, "notes", ["!"])


def test_a_home_and_another_source_inside_are_left_out(
    db: Db, home: Home, tmp_path: Path, root: Path, notes: sources.Source
) -> None:
    (root / "a.md").write_text("a")
    (tmp_path / "b.md").write_text("b")
    (home.cache / "c.md").write_text("c")
    outer = sources.add_source(db, tmp_path, "notes")
    scan(db, outer)
    scan(db, notes)
    assert [(d.source_id, d.path) for d in sources.documents(db)] == [
        (outer.id, "b.md"),
        (notes.id, "a.md"),
    ]
    with pytest.raises(SourceError, match="inside an Acclimate home"):
        sources.add_source(db, home.cache, "notes")


def test_a_bad_line_is_quarantined_and_its_neighbours_kept(db: Db, root: Path) -> None:
    source = sources.add_source(db, root, "chat")
    good = [line("Where?", "Ghent."), line("Who?", "Ada.")]
    (root / "log.jsonl").write_text(f"{good[0]}\n{{{CANARY}\n{good[1]}\n")
    report = scan(db, source)
    assert (report.added, report.examples, report.bad_lines) == (1, 2, 1)
    (bad,) = sources.quarantined(db)
    assert (bad.path, bad.line) == ("log.jsonl", 2)
    assert CANARY not in bad.reason
    assert texts(db) == ["User: Where?\nAssistant: Ghent.", "User: Who?\nAssistant: Ada."]
    # Mended, and one more appended: nothing is doubled.
    more = line("When?", "Monday.")
    (root / "log.jsonl").write_text("\n".join([*good, more]))
    assert ingest.ingest_file(db, source, "log.jsonl").examples == 1
    assert sources.quarantined(db) == []
    assert len(texts(db)) == buffer.counts(db)["pending"] == 3
    # The log rotates away: retrieval loses it, the buffer does not.
    (root / "log.jsonl").unlink()
    scan(db, source)
    assert texts(db) == []
    assert buffer.counts(db)["pending"] == 3


def test_a_chat_folder_takes_json_lines_only(db: Db, root: Path) -> None:
    source = sources.add_source(db, root, "chat")
    (root / "readme.md").write_text("# no chat")
    (root / "noise.jsonl").write_bytes(b"\0\0\0\n\0")
    assert scan(db, source).refused == 2
    reasons = [d.reason for d in sources.documents(db, state="refused")]
    assert reasons == ["binary, not JSON Lines", "not JSON Lines: a chat file ends in .jsonl"]


def test_adding_by_hand(db: Db) -> None:
    assert ingest.add_bytes(db, "-", b"a note from a pipe").chunks == 1
    assert ingest.add_bytes(db, "/x/log.jsonl", line("q", "a").encode()).examples == 1
    assert ingest.add_bytes(db, "/x/tool.py", b"def f():\n    pass\n").chunks == 1
    assert ingest.add_bytes(db, "big", b"x" * 100, max_file_bytes=10).outcome == "refused"
    assert ingest.add_bytes(db, "-", b"a note from a pipe").outcome == "unchanged"
    assert sources.list_sources(db) == []
    assert len(sources.documents(db, state="ok")) == 3


def test_a_forgotten_document_leaves_no_byte_and_stays_away(db: Db, home: Home, root: Path) -> None:
    source = sources.add_source(db, root, "chat")
    secret = line("What is the word?", CANARY)
    (root / "log.jsonl").write_text(f"{secret}\n{line('Who?', 'Ada.')}\n")
    (root / "other.jsonl").write_text(line("Other?", "Yes."))
    scan(db, source)
    (document,) = sources.find_documents(db, root / "log.jsonl")
    done = taken_back(db, home, documents=[document.id])
    assert (done.examples, len(done.chunks), done.retired.versions) == ([1, 2], 2, [])
    assert not on_disk(home, CANARY)
    assert not on_disk(home, "zanzibar")  # nor its token
    (root / "log.jsonl").rename(root / "renamed.jsonl")
    scan(db, source)
    assert paths(db) == ["other.jsonl"]
    # The same exchange in another file does not come back either.
    (root / "copy.jsonl").write_text(f"{secret}\n{line('New?', 'Yes.')}\n")
    scan(db, source)
    assert not on_disk(home, CANARY)
    assert buffer.counts(db) == {
        "pending": 2,
        "learned": 0,
        "held-out": 0,
        "quarantined": 0,
        "forgotten": 2,
    }
    with pytest.raises(NotFound):
        taken_back(db, home, documents=[999])


def test_forgetting_an_example_takes_later_turns_that_quote_it(
    db: Db, home: Home, root: Path
) -> None:
    source = sources.add_source(db, root, "chat")
    messages = []
    for question, reply in [("Hi", "Hello"), ("Code?", CANARY), ("Thanks", "Welcome")]:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": reply})
    (root / "log.jsonl").write_text(json.dumps({"messages": messages}))
    scan(db, source)
    assert buffer.counts(db)["pending"] == 3
    done = taken_back(db, home, examples=[2])
    assert (done.examples, len(done.chunks)) == ([2, 3], 2)
    assert not on_disk(home, CANARY)
    buffer.mark(db, [2], "pending")
    assert buffer.get(db, 2).state == "forgotten"
    assert texts(db) == ["User: Hi\nAssistant: Hello"]


def test_forgetting_a_turn_takes_it_wherever_else_it_was_said(
    db: Db, home: Home, root: Path
) -> None:
    source = sources.add_source(db, root, "chat")
    turn = [{"role": "user", "content": "Code?"}, {"role": "assistant", "content": CANARY}]
    hello = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    asked = [*turn, {"role": "user", "content": "Again?"}]
    lines = [
        {"messages": [*hello, *turn]},
        {"messages": turn},
        {"prompt": asked, "chosen": "No.", "rejected": "Yes."},
        {"prompt": [*hello, *asked[2:]], "chosen": "What?", "rejected": "Yes."},
    ]
    (root / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    scan(db, source)
    assert taken_back(db, home, examples=[2]).examples == [2, 3, 4]
    assert not on_disk(home, CANARY)
    assert [e.id for e in buffer.examples(db, "pending")] == [5, 1]


def test_a_passage_that_was_forgotten_by_its_text_stays_out(
    db: Db, home: Home, root: Path, notes: sources.Source
) -> None:
    code = f"My locker\ncode is {CANARY}."
    before, after = "Bees swarm in May. " * 30, "Wax melts early. " * 20
    path = root / "diary.md"
    path.write_text(f"# May\n\n{before}\n\n# Locker\n\n{code}\n\n# Wax\n\n{after}\n")
    (root / "other.md").write_text("Nothing of the kind.")
    scan(db, notes)
    with db.write() as conn:  # as if questions had been made from the note's passages
        for line, reply in ((7, "It hangs there."), (1, "In May.")):
            conn.execute(
                "INSERT INTO examples(sha256, kind, content, prompt_sha256, document_id, line,"
                " created_at) SELECT ?1, 'exchange', json_object('messages', json_array("
                " json_object('role', 'user', 'content', 'What of it?'),"
                " json_object('role', 'assistant', 'content', ?1))), '', id, ?2, 0"
                " FROM documents WHERE path = 'diary.md'",
                (reply, line),
            )
    looked = taken_back(db, home, matching=f"LOCKER code  is {CANARY}", dry_run=True)
    assert on_disk(home, CANARY) and looked.receipt is None
    done = taken_back(db, home, matching=f"LOCKER code  is {CANARY}")
    assert done.counts() == looked.counts()
    assert (len(done.chunks), [buffer.get(db, n).line for n in done.examples]) == (1, [7])
    assert buffer.counts(db)["pending"] == 1
    assert not on_disk(home, CANARY) and not on_disk(home, "zanzibar")
    for edit in (
        lambda said: f"{said}\nA line more.\n",
        lambda said: f"# June\n\n{'A long new beginning. ' * 30}\n\n{said}",
        lambda said: said.replace(before, ""),
    ):
        path.write_text(edit(path.read_text()))
        scan(db, notes)
        assert not on_disk(home, CANARY), "the file still holds it, in other passages"
    assert any("long new beginning" in text for text in texts(db))
    (root / "copy.md").write_text(f"# May\n\n{before}\n\n# Locker\n\n{code}\n\n# Wax\n\n{after}\n")
    scan(db, notes)
    assert not on_disk(home, CANARY), "the same passage in another file"
    with pytest.raises(NotFound, match="nothing holds"):
        taken_back(db, home, matching=CANARY)


def test_a_text_across_the_cut_of_two_passages_is_found(
    db: Db, home: Home, root: Path, notes: sources.Source
) -> None:
    (root / "long.md").write_text(
        f"{'Bees swarm. ' * 41}The word is {CANARY}, they say. {'x ' * 99}"
    )
    scan(db, notes)
    (a, b) = texts(db)[:2]
    across = f"{a.split()[-1]} {b.split()[0]}"
    assert not any(across in text for text in texts(db))
    assert len(taken_back(db, home, matching=across).chunks) == 2


def test_all_of_a_source_is_forgotten(db: Db, home: Home, root: Path) -> None:
    source = sources.add_source(db, root, "chat")
    (root / "a.jsonl").write_text(line("Word?", CANARY))
    (root / "b.jsonl").write_text(line("Other word?", CANARY))
    scan(db, source)
    (root / "b.jsonl").unlink()
    scan(db, source)
    ingest.add_bytes(db, "mine.jsonl", line("q", "a").encode())
    done = taken_back(db, home, source=source.id)
    assert (done.examples, len(done.documents)) == ([1, 2], 2)
    assert not on_disk(home, CANARY)
    assert buffer.counts(db)["pending"] == 1
    (root / "c.jsonl").write_text(line("New?", "Yes."))
    assert scan(db, source).added == 1


def test_removing_a_source_keeps_its_examples(db: Db, root: Path) -> None:
    source = sources.add_source(db, root, "chat")
    (root / "log.jsonl").write_text(line("q", "a"))
    scan(db, source)
    sources.remove_source(db, source.id)
    assert sources.list_sources(db) == []
    assert texts(db) == []
    assert buffer.counts(db)["pending"] == 1
    with pytest.raises(SourceError, match="no longer watched"):
        ingest.ingest_file(db, source, "log.jsonl")  # an event that came late
    again = sources.add_source(db, root, "chat")
    assert again.id == source.id
    assert scan(db, again).added == 1
    assert buffer.counts(db)["pending"] == 1


def test_a_source_on_the_homes_drive_moves_with_it(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    (stick / "notes").mkdir(parents=True)
    (stick / "notes" / "a.md").write_text("a")
    home = Home.create(stick / "home")
    db = Db(home.db)
    scan(db, sources.add_source(db, stick / "notes", "notes", relative=True))
    db.close()
    stick.rename(tmp_path / "elsewhere")
    db = Db(tmp_path / "elsewhere" / "home" / "acclimate.db")
    (source,) = sources.list_sources(db)
    assert source.path == tmp_path / "elsewhere" / "notes"
    assert scan(db, source) == ScanReport(unchanged=1)
    db.close()


def test_a_scan_of_many_files_converges_while_others_write(
    db: Db, root: Path, notes: sources.Source
) -> None:
    for n in range(2000):
        (root / f"{n % 20}").mkdir(exist_ok=True)
        (root / f"{n % 20}" / f"{n}.md").write_text(f"note number {n}")
    written = 0
    done = threading.Event()

    def chat() -> None:
        nonlocal written
        while not done.wait(0.01):
            with db.write() as conn:
                conn.execute("INSERT OR REPLACE INTO settings VALUES ('n', '1')")
            written += 1

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        report = scan(db, notes)
    finally:
        done.set()
        thread.join()
    assert report.added == 2000
    assert written > 1
    assert set(paths(db)) == {f"{n % 20}/{n}.md" for n in range(2000)}
    assert len(texts(db)) == 2000


def test_a_scan_stops_when_told_and_deletes_nothing(
    db: Db, root: Path, notes: sources.Source
) -> None:
    for n in range(5):
        (root / f"{n}.md").write_text(str(n))
    scan(db, notes)
    (root / "0.md").unlink()
    report = scan(db, notes, should_stop=lambda: True)
    assert (report.complete, report.gone) == (False, 0)
    assert len(paths(db)) == 5


def test_a_source_of_another_computer_is_not_read_until_it_is_watched_here(
    db: Db, root: Path, notes: sources.Source
) -> None:
    (root / "README.md").write_text("mine")
    (root / "old.md").write_text("old")
    scan(db, notes)
    # As a portable copy has it; the other computer has another folder of this name.
    sources.set_state(db, notes.id, "missing", sources.ELSEWHERE)
    elsewhere = sources.get_source(db, notes.id)
    (root / "README.md").write_text("somebody else's")
    (root / "old.md").unlink()
    assert scan(db, elsewhere).missing
    for name in ("README.md", "old.md"):
        assert ingest.ingest_file(db, elsewhere, name).outcome == "unreachable"
    assert sorted(texts(db)) == ["mine", "old"]
    again = sources.add_source(db, root, "notes")
    assert scan(db, again).gone == 1 and texts(db) == ["somebody else's"]
