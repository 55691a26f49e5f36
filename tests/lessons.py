"""Examples as a round gets them, and as rows, for tests of learning and of the ledger."""

from acclimate.adapters.snapshot import Taught
from acclimate.store.db import Db


def taught(number: int, question: str, reply: str = "It is Truffle.") -> Taught:
    """One exchange of one question and its reply."""
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": reply},
    ]
    return Taught(id=number, kind="exchange", content={"messages": messages})


def add_rows(db: Db, count: int) -> None:
    """Pending examples numbered from 1, with nothing in them."""
    with db.write() as conn:
        conn.executemany(
            "INSERT INTO examples(id, sha256, kind, content, prompt_sha256, created_at)"
            " VALUES (?, ?, 'exchange', '{}', '', 0)",
            [(n, str(n)) for n in range(1, count + 1)],
        )
