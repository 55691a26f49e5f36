"""Conversations and feedback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.history import FileHistory

from acclimate.store import conversations as talk
from acclimate.store.db import Db
from acclimate.store.errors import NotFound
from acclimate.store.forget import forget_lines


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


def test_quotes_of_what_was_forgotten_go(db: Db) -> None:
    secret = "The key is under the third pot."
    told = talk.save_exchange(
        db, "a", [user("Where is it?")], f"Well: the KEY is\n{secret[11:]}", "base"
    )
    talk.save_exchange(db, "a", [*said(db, "a"), user("Thanks")], "Yes.", "base")
    asked = talk.save_exchange(db, "b", [user("Tell: where is my spare key?")], "No idea.", "base")
    given = [{"path": "keys.md", "source": "/notes", "text": "an older text of it"}]
    talk.save_exchange(db, "c", [user("Keys?")], "Outside.", "v0001", given)
    chunk = [{"path": "x.md", "source": "/notes", "text": "the chunk"}]
    talk.save_exchange(db, "d", [user("Hm?")], "Quite.", "v0001", chunk)
    talk.save_exchange(db, "e", [user("Sure?")], "Yes. Quite.", "v0001")
    for message in (told, asked):
        talk.add_feedback(db, message, "good")
    kept = talk.save_exchange(db, "f", [user("Who?")], "Ruth.", "base")
    talk.add_feedback(db, kept, "edit", f"It was: {secret}")
    talk.add_feedback(db, kept, "bad")
    with db.write() as conn:
        texts = [secret, "Where is my spare key?", "yes."]
        removed = talk.remove_quotes(conn, texts, ["the chunk"], [("/notes", "keys.md")])
    assert removed == (6, 3)
    assert [said(db, name) for name in "abcdef"] == [
        [user("Where is it?"), user("Thanks")],
        [],
        [user("Keys?")],
        [user("Hm?")],
        [user("Sure?"), {"role": "assistant", "content": "Yes. Quite."}],
        [user("Who?"), {"role": "assistant", "content": "Ruth."}],
    ]
    assert [f.rating for f in talk.list_feedback(db)] == ["bad"]
    left = db.read().execute("SELECT id FROM conversations ORDER BY id").fetchall()
    assert [row["id"] for row in left] == ["a", "c", "d", "e", "f"]


def said(db: Db, conversation: str) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in talk.messages(db, conversation)]


def test_typed_lines_go_with_what_was_forgotten(tmp_path: Path) -> None:
    history = FileHistory(str(tmp_path / "chat_history"))
    for line in (
        "Where is it?",
        "where  is IT?",
        "/edit Under the pot.",
        "Under the pot",
        "two\nlines",
    ):
        history.store_string(line)
    file = tmp_path / "chat_history"
    assert forget_lines(file, ["Where is it?", "Under the pot.", "two lines"]) == 4
    assert list(FileHistory(str(file)).load_history_strings()) == ["Under the pot"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert forget_lines(file, ["Where is it?"]) == 0
    assert forget_lines(tmp_path / "none", ["Where is it?"]) == 0
