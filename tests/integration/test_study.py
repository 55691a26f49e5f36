"""Notes become questions to learn and to find; a later answer takes an older one's place."""

from pathlib import Path

import pytest

from acclimate.adapters.questions import Asked
from acclimate.daemon import study as study_module
from acclimate.daemon.study import study
from acclimate.store import buffer, sources
from acclimate.store.chats import canonical
from acclimate.store.db import Db
from acclimate.store.index import Index
from acclimate.store.ingest import add_bytes
from acclimate.store.scan import scan
from acclimate.store.studied import unstudied


@pytest.fixture
def notes(db: Db, tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    sources.add_source(db, folder, "notes")
    return folder


def read(db: Db) -> None:
    for source in sources.list_sources(db):
        scan(db, source)
    study(db)


def waiting(db: Db) -> dict[str, str]:
    rows = buffer.snapshot(db, limit=100, replay=0).new
    return {e.content["messages"][0]["content"]: e.content["messages"][1]["content"] for e in rows}


def test_a_note_is_learned_with_the_passage_that_says_so(db: Db, notes: Path) -> None:
    (notes / "a.md").write_text("# Boats\n\nOur ferryman is called Hosea. It rained all day.\n")
    read(db)
    assert list(waiting(db).values()) == ["Hosea."]
    (example,) = buffer.snapshot(db, limit=9, replay=0).new
    assert example.origin == "note" and "Our ferryman is called Hosea." in (example.passage or "")
    assert (example.line, example.document_id) == (1, 1)


def test_of_what_is_handed_over_notes_are_studied_and_code_is_not(db: Db) -> None:
    for name, pet in (("a.md", "cat"), ("b.py", "dog"), ("c", "parrot")):
        add_bytes(db, name, f"Our {pet} is called Hosea.\n".encode())
    assert study(db).pairs == 2


def test_a_folder_that_turns_out_to_hold_notes_is_studied(db: Db, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.md").write_text("Our ferryman is called Hosea.\n")
    sources.add_source(db, folder, "code")
    read(db)
    assert waiting(db) == {}
    sources.add_source(db, folder, "notes")
    assert study(db).pairs == 1
    sources.add_source(db, folder, "notes")
    assert study(db).pairs == 0


def test_passages_of_chats_are_looked_at_once(db: Db) -> None:
    add_bytes(db, "a.jsonl", b'{"instruction": "Who ferries?", "output": "Hosea."}')
    add_bytes(db, "a.md", b"Our ferryman is called Hosea.")
    assert [part.text for part in unstudied(db, 1)] == ["Our ferryman is called Hosea."]
    left = db.read().execute("SELECT text FROM chunks WHERE studied = 0").fetchall()
    assert [row["text"] for row in left] == ["Our ferryman is called Hosea."]


def test_a_question_made_of_a_note_is_found_beside_it(db: Db, notes: Path, tmp_path: Path) -> None:
    (notes / "a.md").write_text("Our ferryman is called Hosea.\n")
    read(db)
    found = [hit.text for hit in Index(db, tmp_path / "i.faiss").search("ferryman", None, 5)]
    assert any(text.startswith("User: What") and text.endswith("Hosea.") for text in found)
    assert len(found) == 2
    assert study(db).pairs == 0, "nothing is studied twice"
    assert db.integrity_check() == []


def test_a_note_that_the_rules_stumble_over_costs_no_other(
    db: Db, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = study_module.questions

    def stumbling(text: str) -> list[Asked]:
        if "parrot" in text:
            raise IndexError("list index out of range")
        return real(text)

    monkeypatch.setattr(study_module, "questions", stumbling)
    (notes / "a.md").write_text("Our parrot is called Rex.\n")
    (notes / "b.md").write_text("Our ferryman is called Hosea.\n")
    read(db)
    assert list(waiting(db).values()) == ["Hosea."]
    assert study(db).pairs == 0, "it is not tried again and again"


def test_what_a_changed_note_no_longer_says_is_not_taught(db: Db, notes: Path) -> None:
    (notes / "a.md").write_text("Our ferryman is called Hosea.\n")
    read(db)
    (notes / "a.md").write_text("Nothing to see.\n")
    read(db)
    assert waiting(db) == {}
    left = db.read().execute("SELECT text FROM chunks").fetchall()
    assert [row["text"] for row in left] == ["Nothing to see."]
    (notes / "a.md").write_text("Our ferryman is called Hosea.\n\nAt last.\n")
    read(db)
    assert list(waiting(db).values()) == ["Hosea."]


def test_a_later_answer_supersedes_an_older_one_wherever_it_stood(
    db: Db, notes: Path, tmp_path: Path
) -> None:
    chats = tmp_path / "chats"
    chats.mkdir()
    sources.add_source(db, chats, "chat")

    def say(question: str, reply: str) -> None:
        with (chats / "log.jsonl").open("a") as file:
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": reply},
            ]
            file.write(canonical({"messages": messages}) + "\n")
        read(db)

    say("Who's my apprentice?", "Your apprentice is Lowenna.")
    say("What's the name of my apprentice now?", "Your apprentice is Casimir.")
    assert list(waiting(db).values()) == ["Your apprentice is Casimir."]
    say("What's my apprentice called?", "Casimir.")
    assert len(waiting(db)) == 2, "the same answer in other words contradicts nothing"
    (notes / "a.md").write_text("My apprentice is called Jory.\n")
    read(db)
    assert list(waiting(db).values()) == ["Jory."]


def test_a_learned_answer_is_not_rehearsed_when_a_note_contradicts_it(db: Db, notes: Path) -> None:
    (notes / "a.md").write_text("Our skiff is called Merrow.\n")
    read(db)
    (first,) = buffer.snapshot(db, limit=9, replay=0).new
    buffer.mark(db, [first.id], "learned")
    assert [e.id for e in buffer.snapshot(db, limit=9, replay=9).replay] == [first.id]
    (notes / "b.md").write_text("Our skiff is called Otter.\n")
    read(db)
    found = buffer.snapshot(db, limit=9, replay=9)
    assert (len(found.new), found.replay) == (1, [])
