"""Conversations and feedback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.store import conversations as talk
from acclimate.store.db import Db
from acclimate.store.errors import NotFound


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    db = Db(tmp_path / "a.db")
    yield db
    db.close()


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def test_a_conversation_grows_without_repeating_itself(db: Db) -> None:
    assert talk.last_message(db) is None
    first = talk.save_exchange(db, "c", [user("hi")], "hello", "base", [{"path": "a.md"}])
    prompt = [user("hi"), {"role": "assistant", "content": "hello"}, user("again")]
    second = talk.save_exchange(db, "c", prompt, "yes", "v0001")
    assert [m.content for m in talk.messages(db, "c")] == ["hi", "hello", "again", "yes"]
    assert talk.get_message(db, first).passages == [{"path": "a.md"}]
    last = talk.last_message(db)
    assert last is not None
    assert (last.id, last.adapter) == (second, "v0001")
    assert talk.last_message(db, "other") is None
    with pytest.raises(NotFound):
        talk.get_message(db, "nothing")


def test_an_edited_question_opens_a_new_conversation(db: Db) -> None:
    first = talk.save_exchange(db, None, [user("hi")], "hello", "base")
    conversation = talk.get_message(db, first).conversation_id
    second = talk.save_exchange(db, conversation, [user("hey")], "hello", "base")
    assert talk.get_message(db, second).conversation_id != conversation
    assert len(talk.messages(db, conversation)) == 2


def test_feedback_keeps_the_reply_and_its_prompt(db: Db) -> None:
    message = talk.save_exchange(db, None, [user("hi")], "hello", "base")
    talk.add_feedback(db, message, "good")
    talk.add_feedback(db, message, "edit", "Hello, Ada.")
    newest, oldest = talk.list_feedback(db, unused=True)
    assert (newest.rating, newest.edit, newest.prompt, newest.reply) == (
        "edit",
        "Hello, Ada.",
        [user("hi")],
        "hello",
    )
    assert (oldest.rating, oldest.used) == ("good", False)
    for rating, edit in [("edit", None), ("edit", " "), ("good", "x"), ("fine", None)]:
        with pytest.raises(ValueError):
            talk.add_feedback(db, message, rating, edit)  # type: ignore[arg-type]
    question = talk.messages(db, talk.get_message(db, message).conversation_id)[0]
    with pytest.raises(ValueError):
        talk.add_feedback(db, question.id, "good")
