"""Hybrid search with a real FAISS file beside a real database."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from acclimate.store import forget, ingest, retire, sources
from acclimate.store import index as index_module
from acclimate.store.db import Db
from acclimate.store.files import Home
from acclimate.store.index import Index, fts_query
from acclimate.store.scan import scan

NOTES = {
    "garden.md": "Leeks and beans grow behind the shed.",
    "work.md": 'The meeting about budgets is on Monday, he said "perhaps".',
    "dog.md": "My dog Rex sleeps under the stairs.",
}


def vector(*numbers: int) -> NDArray[np.float32]:
    """A unit vector that points along these axes."""
    out = np.zeros(384, dtype=np.float32)
    out[list(numbers)] = 1 / np.sqrt(len(numbers))
    return out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "notes"
    root.mkdir()
    for name, text in NOTES.items():
        (root / name).write_text(text)
    return root


@pytest.fixture
def db(tmp_path: Path, root: Path) -> Iterator[Db]:
    db = Db(tmp_path / "a.db")
    scan(db, sources.add_source(db, root, "notes"))
    yield db
    assert db.integrity_check() == []
    db.close()


@pytest.fixture
def index(db: Db, tmp_path: Path) -> Index:
    index = Index(db, tmp_path / "index.faiss")
    pending = index.pending(10)
    vectors = np.stack([vector(chunk_id) for chunk_id, _ in pending])
    index.set_vectors([chunk_id for chunk_id, _ in pending], vectors)
    return index


def found(index: Index, text: str, query: NDArray[np.float32] | None = None) -> list[str]:
    return [hit.path for hit in index.search(text, query, 3)]


def axis(index: Index, db: Db, path: str) -> int:
    row = db.read().execute(
        "SELECT c.id FROM chunks c JOIN documents d ON d.id = document_id WHERE path = ?", (path,)
    )
    return int(row.fetchone()[0])


def test_words_meaning_and_both(index: Index, db: Db, root: Path) -> None:
    assert index.pending(10) == []
    assert index.size == 3
    assert found(index, "leek") == ["garden.md"]  # stemmed
    assert found(index, "zzz", vector(axis(index, db, "dog.md")))[0] == "dog.md"
    both = index.search("budgets", vector(axis(index, db, "work.md")), 3)
    assert both[0].path == "work.md"
    assert both[0].score == pytest.approx(2 / 61)
    assert (both[0].start_line, both[0].end_line, both[0].source) == (1, 1, str(root))
    assert index.search("leek", None, 0) == []


@pytest.mark.parametrize(
    "text",
    ["", '"', "'", "AND", "a AND", "NOT leeks", "NEAR(a b)", "text:leeks", "leeks*", "^leeks",
     "(", "-leeks", "a\0b", "\ud800", "{leeks}", "+", "😀", "leeks " * 10_000, "%_", "ﬀ"],
)  # fmt: skip
def test_no_query_raises(index: Index, text: str) -> None:
    index.search(text, None, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(text=st.text())
def test_no_query_raises_at_all(index: Index, text: str) -> None:
    index.search(text, None, 3)


def test_operators_in_a_query_are_words() -> None:
    assert fts_query('Leeks AND "beans') == '"leeks" OR "and" OR "beans"'
    assert fts_query("?!") == ""
    assert fts_query("Where do I keep the kettle?", common=False) == '"keep" OR "kettle"'
    assert fts_query("Wo ist der Kessel?", common=False) == '"kessel"'
    assert fts_query("What is it?", common=False) == '"what" OR "is" OR "it"'


def test_bad_vectors_are_refused(index: Index) -> None:
    good = np.stack([vector(1)])
    for bad in (good[:, :10], good * np.nan, good * 3, np.stack([vector(1), vector(2)])):
        with pytest.raises(ValueError):
            index.set_vectors([1], bad)
    with pytest.raises(ValueError):
        index.search("x", vector(1)[:10], 3)
    index.set_vectors([999], good)  # a chunk that is gone
    assert index.size == 3


def test_a_chunk_is_as_near_as_it_and_its_nearest_sentence_are(index: Index, db: Db) -> None:
    dog, work = axis(index, db, "dog.md"), axis(index, db, "work.md")
    own = np.stack([vector(dog), vector(work)])
    index.set_vectors([dog, work], own, [np.stack([vector(200), vector(201)]), own[:0]])
    assert index.similarities([dog, work], vector(dog)) == pytest.approx({dog: 0.4, work: 0.0})
    assert index.similarities([dog], vector(201)) == pytest.approx({dog: 0.6})
    assert index.similarities([work], vector(work)) == pytest.approx({work: 1.0}), "only itself"
    assert index.similarities([999], vector(1)) == {}
    index.set_vectors([dog], own[:1])
    assert index.similarities([dog], vector(201)) == pytest.approx({dog: 0.0}), "none any more"


def test_a_restart_loads_the_file(index: Index, db: Db, tmp_path: Path) -> None:
    index.flush()
    stamp = (tmp_path / "index.faiss").stat().st_mtime_ns
    again = Index(db, tmp_path / "index.faiss")
    assert again.size == 3
    again.flush()  # nothing changed, nothing is written
    assert (tmp_path / "index.faiss").stat().st_mtime_ns == stamp
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".tmp")] == []


def test_a_small_change_waits_for_the_file_and_is_caught_up(
    index: Index, db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.flush()
    path = tmp_path / "index.faiss"
    before = path.read_bytes()
    with db.write() as conn:
        conn.execute("DELETE FROM chunks WHERE id = 1")
    index.set_vectors([2], np.stack([vector(9)]))
    assert index.size == 3
    index.search("x", vector(9), 1)
    assert index.size == 2, "an older vector of the same chunk is gone"
    index.flush_sometimes()
    assert path.read_bytes() == before
    again = Index(db, path)
    assert again.size == 2
    monkeypatch.setattr(index_module, "_BATCH", 2)
    index.flush_sometimes()
    assert path.read_bytes() != before and Index(db, path).size == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "absent", "of another size"])
def test_a_file_that_is_off_is_rebuilt(index: Index, db: Db, tmp_path: Path, damage: str) -> None:
    index.flush()
    path = tmp_path / "index.faiss"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:100])
    elif damage == "absent":
        path.unlink()
    else:
        assert Index(db, path, dimensions=16, embedder="other").size == 0
        return
    again = Index(db, path)
    assert again.size == 3
    assert found(again, "", vector(axis(again, db, "dog.md")))[0] == "dog.md"


def test_a_file_older_than_the_database_catches_up(
    index: Index, db: Db, tmp_path: Path, root: Path
) -> None:
    index.flush()
    (source,) = sources.list_sources(db)
    (root / "dog.md").unlink()
    (root / "cat.md").write_text("A cat came.")
    scan(db, source)
    ((chunk_id, _),) = index.pending(10)
    index.set_vectors([chunk_id], np.stack([vector(100)]))
    again = Index(db, tmp_path / "index.faiss")  # as after a crash before the next flush
    assert again.size == 3
    assert found(again, "", vector(100))[0] == "cat.md"
    assert "dog.md" not in found(again, "dog stairs", vector(3))
    again.rebuild()
    assert again.size == 3


def test_deleted_chunks_are_found_no_more(index: Index, db: Db, root: Path) -> None:
    (source,) = sources.list_sources(db)
    gone = axis(index, db, "dog.md")
    (root / "dog.md").unlink()
    ingest.ingest_file(db, source, "dog.md")
    assert "dog.md" not in found(index, "dog", vector(gone))
    assert index.size == 2


def test_a_forgotten_document_leaves_the_file_too(index: Index, db: Db, tmp_path: Path) -> None:
    taught = np.random.default_rng(0).normal(size=(1, 384)).astype(np.float32)
    taught /= np.linalg.norm(taught)
    index.set_vectors([axis(index, db, "dog.md")], taught)
    index.flush()
    gone = taught.tobytes()
    assert gone in (tmp_path / "index.faiss").read_bytes()
    (document,) = [d for d in sources.documents(db) if d.path == "dog.md"]
    forget.forget(db, forget.Wanted([document.id]), tmp_path / "chat_history")
    retire.clear(db, Home(tmp_path, ""), index.flush)
    for path in tmp_path.iterdir():
        if path.is_file():
            assert gone not in path.read_bytes(), path


def test_another_embedder_drops_the_vectors(index: Index, db: Db, tmp_path: Path) -> None:
    index.flush()
    first = Index(db, tmp_path / "index.faiss", embedder="one")
    assert (first.size, len(first.pending(10))) == (0, 3)
    first.set_vectors([1], np.stack([vector(1)]))
    assert Index(db, tmp_path / "index.faiss", embedder="one").size == 1
    assert Index(db, tmp_path / "index.faiss", embedder="two").size == 0


def test_threads_search_add_and_delete_together(index: Index, db: Db, root: Path) -> None:
    (source,) = sources.list_sources(db)
    errors: list[BaseException] = []

    def change(name: str) -> None:
        try:
            for n in range(15):
                (root / name).write_text(f"version {n} of {name}")
                ingest.ingest_file(db, source, name)
                pending = index.pending(10)
                if pending:
                    index.set_vectors([i for i, _ in pending], np.stack([vector(7)] * len(pending)))
        except BaseException as e:
            errors.append(e)

    def look() -> None:
        try:
            for _ in range(60):
                index.search("version", vector(7), 3)
            index.flush()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=change, args=(f"{n}.md",)) for n in range(2)]
    threads += [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(found(index, "version")) == ["0.md", "1.md"]
    waiting = [chunk_id for chunk_id, _ in index.pending(10)]
    index.set_vectors(waiting, np.tile(vector(7), (len(waiting), 1)))
    assert index.size == 5
