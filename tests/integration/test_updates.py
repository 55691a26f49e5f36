"""New answers to known questions, found in real text by the shipped reader."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.daemon.embed import Embedder
from acclimate.daemon.reader import Reader
from acclimate.daemon.study import study
from acclimate.daemon.updates import Updates, changes, replaces
from acclimate.store import buffer
from acclimate.store.db import Db
from acclimate.store.files import Home
from acclimate.store.forget import Wanted, forget
from acclimate.store.ingest import add_bytes

NOTE = (
    "Tuesday. Rain again, and the tea ran out at ten. Casimir is my apprentice now, since Lowenna"
    " went to sea, and he has already dropped the big pipe. Two herons on the weir."
)


@pytest.fixture(scope="module")
def embedder(real_models: Path) -> Iterator[Embedder]:
    embedder = Embedder(real_models / "all-minilm-l6-v2.gguf")
    yield embedder
    embedder.close()


@pytest.fixture
def updates(db: Db, embedder: Embedder) -> Updates:
    return Updates(db, embedder.embed, Reader.shipped(embedder))


def chat(db: Db, name: str, *pairs: tuple[str, str]) -> None:
    lines = [json.dumps({"instruction": asked, "output": said}) for asked, said in pairs]
    add_bytes(db, f"{name}.jsonl", "\n".join(lines).encode())
    study(db)


def note(db: Db, name: str, text: str) -> None:
    add_bytes(db, f"{name}.md", text.encode())
    study(db)


def answered(db: Db) -> dict[str, str]:
    """Of every question that an example answers anew, the reply."""
    rows = db.read().execute("SELECT id FROM examples WHERE about IS NOT NULL AND content != '{}'")
    found = [buffer.get(db, row["id"]).content["messages"] for row in rows]
    return {asked["content"]: said["content"] for asked, said in found}


KNOWN = (
    ("Who's my apprentice?", "Your apprentice is Lowenna."),
    ("What's our cat called?", "Your cat is called Pickersgill."),
    ("Which river is my workshop on?", "Your workshop is on the Wend."),
)


def test_an_old_question_is_taught_with_its_new_answer(db: Db, updates: Updates) -> None:
    chat(db, "first", *KNOWN)
    assert updates.find() == 0
    note(db, "later", NOTE)
    assert updates.find() == 1
    assert answered(db) == {"Who's my apprentice?": "Casimir."}
    old = buffer.get(db, 1)
    assert (old.state, old.reason.partition(" by ")[0]) == ("forgotten", "superseded")
    assert {buffer.get(db, n).state for n in (2, 3)} == {"pending"}
    assert updates.find() == 0, "every passage is looked at once"


def test_what_is_no_news_changes_nothing(db: Db, updates: Updates) -> None:
    chat(db, "first", *KNOWN)
    note(db, "later", "Casimir is the apprentice of the baker. His cat is called Moth.")
    note(db, "other", "The bus timetable has changed, and the baker now opens at seven.")
    assert updates.find() == 0
    assert buffer.get(db, 1).state == "pending"


def test_an_earlier_passage_is_no_news(db: Db, updates: Updates) -> None:
    note(db, "earlier", NOTE)
    chat(db, "later", *KNOWN)
    assert updates.find() == 0


def test_what_is_forgotten_takes_its_update_along(db: Db, home: Home, updates: Updates) -> None:
    chat(db, "first", *KNOWN)
    note(db, "later", NOTE)
    assert updates.find() == 1
    forget(db, Wanted(examples=[1]), home.root / "history")
    assert answered(db) == {}


def test_the_passage_that_is_forgotten_takes_its_update_along(
    db: Db, home: Home, updates: Updates
) -> None:
    chat(db, "first", *KNOWN)
    note(db, "later", NOTE)
    assert updates.find() == 1
    forget(db, Wanted(documents=[2]), home.root / "history")
    assert answered(db) == {}


@pytest.mark.parametrize(
    ("before", "now", "does"),
    [
        ("lowenna", "Casimir", True),
        ("lowenna", "lowenna", False),
        ("72 pounds", "95 pounds", True),
        ("eighty-six", "52", True),
        ("the 23rd", "May", False),
        ("lowenna", "at seven", False),
        ("perth", "Leith", True),
        ("perth", "the twelfth", False),
        ("lowenna hale", "Lowenna", False),
        ("them in grandfather's cigar box", "the cigar box", False),
    ],
)
def test_an_answer_of_another_kind_changes_nothing(before: str, now: str, does: bool) -> None:
    assert changes(before, now) is does


@pytest.mark.parametrize(
    ("text", "does"),
    [
        ("Casimir is my apprentice now.", True),
        ("Casimir is my apprentice now, since Lowenna went to sea.", True),
        ("Lowenna went to sea. Casimir is my apprentice now.", True),
        ("Lowenna went to sea this morning. Casimir is my apprentice.", False),
        ("Casimir has moved next door. No luck at the weir. Rain. Lowenna swept up.", False),
    ],
)
def test_a_new_answer_stands_where_the_text_speaks_of_a_change(text: str, does: bool) -> None:
    assert replaces(text, "lowenna", "Casimir") is does
