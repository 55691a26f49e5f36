"""What goes into a prompt: floor, budget and form. Vectors are given by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from acclimate.adapters.passages import with_passages
from acclimate.daemon.config import RetrievalConfig
from acclimate.daemon.retrieve import (
    Retriever,
    question_of,
    shared_words,
    within,
)
from acclimate.daemon.study import find_topics
from acclimate.store.db import Db
from acclimate.store.errors import EngineError
from acclimate.store.index import Hit, Index
from acclimate.store.ingest import add_bytes
from acclimate.store.scan import scan
from acclimate.store.sources import add_source

CLARINET = "The clarinet is at Ruth's, she mends its pads."
BEES = "Seven hives stand behind the allotment."
CHAT = (
    b'{"messages": [{"role": "user", "content": "Who mends clarinets?"},'
    b' {"role": "assistant", "content": "Ruth does."}]}\n'
)


def hit(text: str, score: float = 1.0, chunk_id: int = 1) -> Hit:
    return Hit(chunk_id, text, "note.md", "/notes", 1, 2, score)


class Topics:
    """A vector by what a text is about; texts about nothing have none, and fail."""

    def __init__(self) -> None:
        self.broken = False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            if self.broken or not text.strip() or "unreadable" in text:
                raise EngineError("no vector")
            row[0 if "larinet" in text else 1 if "hive" in text else 2] = 1.0
        return vectors


@pytest.fixture
def db(tmp_path: Path) -> Db:
    db = Db(tmp_path / "a.db")
    add_bytes(db, "music.md", CLARINET.encode())
    add_bytes(db, "bees.md", BEES.encode())
    return db


def test_the_passages_stand_before_the_question_as_plain_text() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    composed = with_passages(messages, ["Ruth mends clarinets.\n", BEES])
    assert composed[0] == messages[0]
    assert composed[1]["content"] == (f"Notes:\nRuth mends clarinets.\n\n{BEES}\n\nQuestion: Who?")
    assert messages[1]["content"] == "Who?", "what was asked is kept as it was asked"


def test_without_passages_the_messages_are_what_they_were() -> None:
    messages = [{"role": "user", "content": "Who?"}]
    assert with_passages(messages, []) == messages
    assert with_passages([], ["x"]) == []


def test_only_what_the_user_asked_last_is_searched_for() -> None:
    asked = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    assert question_of(asked) == ""
    assert question_of([*asked, {"role": "user", "content": "three"}]) == "three"
    assert question_of([]) == ""


def test_the_budget_keeps_whole_passages_and_cuts_a_single_long_one() -> None:
    hits = [hit("a" * 60), hit("b" * 60), hit("c" * 10)]
    assert [h.text[0] for h in within(hits, 130)] == ["a", "b", "c"]
    assert [h.text[0] for h in within(hits, 119)] == ["a"], "the ranking is not skipped over"
    assert within([hit("a" * 60)], 20)[0].text == "a" * 20


def test_words_of_a_question_count_when_there_is_no_vector() -> None:
    assert shared_words("Where is my clarinet?", CLARINET) == 1.0
    assert shared_words("Where is the capital of France?", CLARINET) == 0.0
    assert shared_words("", CLARINET) == 0.0


def test_passages_below_the_floor_are_left_out(db: Db, tmp_path: Path) -> None:
    retriever = Retriever(db, Index(db, tmp_path / "i"), Topics())
    assert retriever.embed_pending() == 2
    assert retriever.embed_pending() == 0
    assert [h.text for h in retriever.passages("Is the clarinet mended?")] == [CLARINET]
    assert retriever.passages("What is the capital of France?") == []
    assert len(retriever.search("What is the capital of France?", 5)) == 2, "a search hides nothing"


def test_chunks_without_a_vector_are_found_by_their_words(db: Db, tmp_path: Path) -> None:
    for embedder in (None, Topics()):
        retriever = Retriever(db, Index(db, tmp_path / "i"), embedder)
        assert [h.text for h in retriever.passages("Where is the clarinet?")] == [CLARINET]
        assert retriever.passages("What is the capital of France?") == []
    assert Retriever(db, Index(db, tmp_path / "i")).embed_pending() == 0


def test_what_was_said_in_chats_reads_as_a_dialogue(db: Db, tmp_path: Path) -> None:
    add_bytes(db, "log.jsonl", CHAT)
    retriever = Retriever(db, Index(db, tmp_path / "i"))
    found = with_passages(
        [{"role": "user", "content": "?"}],
        [h.text for h in retriever.passages("Who mends clarinets?")],
    )
    assert "User: Who mends clarinets?\nAssistant: Ruth does." in found[0]["content"]


def test_the_settings_bound_what_is_shown(db: Db, tmp_path: Path) -> None:
    for i in range(10):
        add_bytes(db, f"{i}.md", f"{CLARINET} {i}".encode())
    settings = RetrievalConfig(passages=3, max_chars=100)
    found = Retriever(db, Index(db, tmp_path / "i"), None, settings).passages("clarinet pads")
    assert len(found) == 2
    assert sum(len(h.text) for h in found) <= 100


def test_one_text_that_cannot_be_embedded_does_not_hold_up_the_others(
    db: Db, tmp_path: Path
) -> None:
    add_bytes(db, "odd.md", b"unreadable")
    index, embedder = Index(db, tmp_path / "i"), Topics()
    retriever = Retriever(db, index, embedder)
    embedder.broken = True
    with pytest.raises(EngineError):
        retriever.embed_pending()
    assert len(index.pending(9)) == 3, "an embedder that fails altogether marks nothing as done"
    embedder.broken = False
    assert retriever.embed_pending() == 3
    assert index.pending(9) == []
    assert [h.text for h in retriever.passages("clarinet")] == [CLARINET]


def test_what_was_said_before_an_answer_changed_is_not_shown(db: Db, tmp_path: Path) -> None:
    turn = (
        '{{"messages": [{{"role": "user", "content": "Who mends my clarinet?"}},'
        ' {{"role": "assistant", "content": "{} does."}}]}}\n'
    )
    for n, who in enumerate(("Ruth", "Boris")):
        add_bytes(db, f"{n}.jsonl", turn.format(who).encode())
    index = Index(db, tmp_path / "index.faiss")
    retriever = Retriever(db, index, Topics())
    while retriever.embed_pending():
        pass
    before = [found.text for found in retriever.passages("Who mends my clarinet?")]
    find_topics(db)
    after = [found.text for found in retriever.passages("Who mends my clarinet?")]
    assert any("Ruth does" in text for text in before)
    assert any("Boris does" in text for text in after)
    assert not any("Ruth does" in text for text in after)
    assert any("Ruth does" in found.text for found in retriever.search("Ruth clarinet", 5))


def test_sentences_of_notes_have_vectors_of_their_own_and_lines_of_code_have_none(
    tmp_path: Path,
) -> None:
    db = Db(tmp_path / "a.db")
    for name, kind in (("notes", "notes"), ("code", "code")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("the clarinet is old\nseven hives stand here\n")
        scan(db, add_source(db, tmp_path / name, kind))  # type: ignore[arg-type]
    retriever = Retriever(db, Index(db, tmp_path / "i"), Topics())
    while retriever.embed_pending():
        pass
    rows = db.read().execute(
        "SELECT s.kind, length(c.sentences) FROM chunks c JOIN documents d ON d.id = c.document_id"
        " JOIN sources s ON s.id = d.source_id ORDER BY s.kind"
    )
    assert [tuple(row) for row in rows.fetchall()] == [("code", None), ("notes", 2 * 384 * 2)]
    found = retriever.passages("How many hives are there?")
    assert found[0].source.endswith("notes") and found[0].score == pytest.approx(0.6, abs=1e-3)
