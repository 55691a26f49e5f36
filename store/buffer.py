"""The buffer of examples: what is waiting to be learned, and what became of each.

Knows no files and no training.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from acclimate.store import dedupe
from acclimate.store import replay as rehearsals
from acclimate.store.balance import TAKEN_BACK, Caps, Waiting, choose
from acclimate.store.chats import Exchange, canonical
from acclimate.store.curate import judge
from acclimate.store.db import Db, ids
from acclimate.store.errors import NotFound
from acclimate.store.files import failpoint
from acclimate.store.route import TEACHABLE, Route
from acclimate.store.topics import SUPERSEDED

State = Literal["pending", "learned", "held-out", "quarantined", "forgotten"]
FORGOTTEN = "forgotten on request"
_PAGE = 500  # rows read at once of what waits


@dataclass(frozen=True)
class Example:
    id: int
    kind: Literal["exchange", "preference"]
    content: dict[str, Any]  # see chats.Exchange.content
    source_id: int | None
    document_id: int | None
    line: int | None
    state: State
    reason: str  # of its state; of a pending one, why the last round left it out
    created_at: float
    route: Route
    route_reason: str
    language: str  # as guessed, "" when unknown
    cluster: int | None  # the first of its near-duplicates
    surprise: float  # NLL of its reply when last measured, in nats a token; 0 before
    origin: Literal["said", "note"]  # whether it stood in a chat, or was made out of a note
    chunk_id: int | None  # the passage of the note
    weight: float  # how much worth learning, 0 to 1; of what was said always 1
    topic: str | None  # what its question is about, see `topics`; None before that was looked at
    told: str  # what the reply says about it
    about: int | None  # the earlier example whose question it answers anew
    passage: str | None  # the passage's text


@dataclass(frozen=True)
class Added:
    new: int
    known: int
    superseded: int


@dataclass(frozen=True)
class Snapshot:
    """What a round may use: first come those held out before, so nothing stays unlearned."""

    new: list[Example]
    replay: list[Example]


def add_document_examples(
    db: Db, source_id: int, document_id: int, exchanges: Sequence[Exchange]
) -> Added:
    """Put a document's exchanges into the buffer, each content once, whatever file it came from.

    Of several replies to the same messages the last one counts: it supersedes older ones of the
    same source that no round has taught yet. What was forgotten on request stays out.
    """
    new = known = superseded = 0
    with db.write() as conn:
        for exchange in last_replies(exchanges):
            row = conn.execute(
                "SELECT id, state, reason FROM examples WHERE sha256 = ?", (exchange.sha256(),)
            ).fetchone()
            if row is None:
                example_id = _insert(conn, source_id, document_id, exchange)
                new += 1
            else:
                example_id = int(row["id"])
                known += 1
                conn.execute(
                    "UPDATE examples SET line = ? WHERE id = ? AND document_id = ?",
                    (exchange.line, example_id, document_id),
                )
                if not _returns(conn, row, document_id):
                    continue
            if exchange.kind == "exchange":
                superseded += conn.execute(
                    "UPDATE examples SET state = 'forgotten', reason = ? WHERE source_id = ?"
                    " AND prompt_sha256 = ? AND kind = 'exchange' AND id != ?"
                    " AND state IN ('pending', 'held-out')",
                    (f"{SUPERSEDED}{example_id}", source_id, exchange.prompt_sha256(), example_id),
                ).rowcount
        failpoint("buffer.added")
    return Added(new, known, superseded)


def last_replies(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """Those that count: of several replies to the same messages the last one."""
    return list({_key(exchange): exchange for exchange in exchanges}.values())


def _key(exchange: Exchange) -> str:
    # Several pairs for one prompt do not contradict each other; several replies do.
    return exchange.prompt_sha256() if exchange.kind == "exchange" else exchange.sha256()


def _insert(conn: sqlite3.Connection, source_id: int, document_id: int, exchange: Exchange) -> int:
    judged = judge(exchange)
    row = conn.execute(
        "INSERT INTO examples(sha256, kind, content, prompt_sha256, source_id, document_id, line,"
        " created_at, route, route_reason, language, topic)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            exchange.sha256(),
            exchange.kind,
            canonical(exchange.content()),
            exchange.prompt_sha256(),
            source_id,
            document_id,
            exchange.line,
            time.time(),
            judged.decision.route,
            judged.decision.reason,
            judged.language,
            None if exchange.kind == "exchange" else "",  # a pair of replies states nothing
        ),
    ).fetchone()
    if judged.decision.route != "dropped":
        dedupe.join(conn, row["id"], exchange)
    return int(row["id"])


def _returns(conn: sqlite3.Connection, row: sqlite3.Row, document_id: int) -> bool:
    """Revive a superseded example when the document that replaced it now says this one again."""
    if row["state"] != "forgotten" or not row["reason"].startswith(SUPERSEDED):
        return False
    return (
        conn.execute(
            "UPDATE examples SET state = 'pending', reason = '' WHERE id = ? AND EXISTS"
            " (SELECT 1 FROM examples WHERE id = ? AND document_id = ?)",
            (row["id"], int(row["reason"].removeprefix(SUPERSEDED)), document_id),
        ).rowcount
        == 1
    )


def forgotten(db: Db, exchanges: Iterable[Exchange]) -> set[str]:
    """Hashes of those exchanges that were forgotten on request and must not come back."""
    hashes = json.dumps([exchange.sha256() for exchange in exchanges])
    rows = db.read().execute(
        "SELECT sha256 FROM examples WHERE reason = ?"
        " AND sha256 IN (SELECT value FROM json_each(?))",
        (FORGOTTEN, hashes),
    )
    return {row["sha256"] for row in rows.fetchall()}


def follow_rewrites(
    conn: sqlite3.Connection, exchanges: Iterable[Exchange], originals: Mapping[str, str]
) -> None:
    """Let rows of exchanges that were stored in an older form (`originals`) have the new one.

    What was forgotten on request under its older form stays forgotten.
    """
    for exchange in exchanges:
        old = originals.get(exchange.sha256())
        if old is not None:
            row = conn.execute("SELECT id, reason FROM examples WHERE sha256 = ?", (old,))
            if (found := row.fetchone()) is not None:
                rewrite(conn, found["id"], found["reason"], exchange)


def rewrite(conn: sqlite3.Connection, example_id: int, reason: str, exchange: Exchange) -> None:
    """Give a stored example another content; one that is there already makes it superfluous."""
    sha256 = exchange.sha256()
    twin = conn.execute("SELECT id, reason FROM examples WHERE sha256 = ?", (sha256,)).fetchone()
    if reason == FORGOTTEN:
        if twin is None:
            conn.execute("UPDATE examples SET sha256 = ? WHERE id = ?", (sha256, example_id))
    elif twin is None:
        conn.execute(
            "UPDATE examples SET sha256 = ?, content = ?, prompt_sha256 = ? WHERE id = ?",
            (sha256, canonical(exchange.content()), exchange.prompt_sha256(), example_id),
        )
    elif twin["id"] != example_id:
        conn.execute(
            "UPDATE examples SET state = 'forgotten', reason = ?, content = '{}',"
            " prompt_sha256 = '' WHERE id = ?",
            (f"the same as {twin['id']} without its secrets", example_id),
        )


def counts(db: Db) -> dict[State, int]:
    """How many examples are in each state; every state is there."""
    rows = db.read().execute("SELECT state, count(*) FROM examples GROUP BY state").fetchall()
    return {**dict.fromkeys(get_args(State), 0), **{row[0]: row[1] for row in rows}}


def get(db: Db, example_id: int) -> Example:
    """One example. Raises NotFound."""
    row = db.read().execute(f"{_ROWS} WHERE id = ?", (example_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no example {example_id}")
    return _example(row)


def examples(
    db: Db, state: State | None = None, limit: int = 50, route: Route | None = None
) -> list[Example]:
    """The latest examples, newest first."""
    wanted = {name: x for name, x in (("state", state), ("route", route)) if x is not None}
    where = " AND ".join(["1", *(f"e.{name} = :{name}" for name in wanted)])
    rows = db.read().execute(
        f"{_ROWS} WHERE {where} ORDER BY id DESC LIMIT :limit",
        {"limit": limit, **wanted},
    )
    return [_example(row) for row in rows.fetchall()]


def routes(db: Db) -> dict[Route, int]:
    """How many pending examples go where; every route is there."""
    query = "SELECT route, count(*) FROM examples WHERE state = 'pending' GROUP BY route"
    rows = db.read().execute(query).fetchall()
    return {**dict.fromkeys(get_args(Route), 0), **{row[0]: row[1] for row in rows}}


def held_back(db: Db) -> dict[str, int]:
    """How many pending examples the last snapshot left out, by reason."""
    query = (
        "SELECT reason, count(*) FROM examples INDEXED BY examples_held"  # noqa: S608
        f" WHERE state = 'pending' AND reason != '' AND {TEACHABLE} GROUP BY reason"
    )
    return {row[0]: row[1] for row in db.read().execute(query).fetchall()}


def snapshot(
    db: Db,
    *,
    limit: int,
    replay: int,
    seed: int = 0,
    caps: Caps | None = None,
    taken_back: Iterable[int] = (),
) -> Snapshot:
    """At most `limit` examples to teach, oldest first, and `replay` of the learned ones.

    What a cap holds back stays pending, with the reason, and so does what is `taken_back` (see
    `ledger.often_taken_back`). A learned reply that a newer one contradicts is not rehearsed.
    """
    caps, apart = caps or Caps(), ids(taken_back)
    with db.write() as conn:
        held_out = conn.execute(
            "SELECT id, source_id, cluster FROM examples WHERE state = 'held-out'"  # noqa: S608
            f" AND {TEACHABLE} ORDER BY id LIMIT ?",
            (limit,),
        ).fetchall()
        chosen = choose(
            [Waiting(*row) for row in held_out],
            _pending(conn, caps.from_notes, apart),
            limit,
            caps,
            lambda cluster: _taught(conn, cluster),
        )
        _note_held(conn, {**chosen.held, **_pending_of(conn, apart)})
        new = conn.execute(
            f"{_ROWS} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY state, id",  # noqa: S608
            (ids(chosen.ids),),
        ).fetchall()
        clusters = Counter(row["cluster"] for row in new)
        rehearsed = rehearsals.draw(
            conn, replay, seed, alike=caps.alike_per_round, clusters=clusters
        )
        old = conn.execute(
            f"{_ROWS} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY sha256",  # noqa: S608
            (ids(rehearsed),),
        ).fetchall()
    return Snapshot([_example(row) for row in new], [_example(row) for row in old])


def _pending(
    conn: sqlite3.Connection, from_notes: int, apart: str
) -> dict[int | None, Iterator[Waiting]]:
    """What a round may teach, by source and in order; of what was made of notes the weightiest.

    But for the examples in `apart`, a JSON array.
    """
    notes = conn.execute(
        "SELECT id FROM examples INDEXED BY examples_of_notes"  # noqa: S608
        f" WHERE state = 'pending' AND origin = 'note' AND {TEACHABLE}"
        " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY weight DESC, id LIMIT ?",
        (apart, from_notes),
    )
    weightiest = ids(row["id"] for row in notes.fetchall())

    def of(source: int | None) -> Iterator[Waiting]:
        last, found = 0, _PAGE
        while found == _PAGE:
            rows = conn.execute(
                "SELECT id, source_id, cluster FROM examples INDEXED BY examples_waiting"  # noqa: S608
                f" WHERE state = 'pending' AND {TEACHABLE} AND source_id IS ? AND id > ?"
                " AND (origin = 'said' OR id IN (SELECT value FROM json_each(?)))"
                " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
                (source, last, weightiest, apart, _PAGE),
            ).fetchall()
            yield from (Waiting(*row) for row in rows)
            found, last = len(rows), rows[-1]["id"] if rows else 0

    sources = conn.execute("SELECT id FROM sources").fetchall()
    return {source: of(source) for source in (None, *(row["id"] for row in sources))}


def _pending_of(conn: sqlite3.Connection, apart: str) -> dict[int, str]:
    rows = conn.execute(
        "SELECT id FROM examples NOT INDEXED"  # noqa: S608
        f" WHERE id IN (SELECT value FROM json_each(?)) AND state = 'pending' AND {TEACHABLE}",
        (apart,),
    )
    return {row["id"]: TAKEN_BACK for row in rows.fetchall()}


def _taught(conn: sqlite3.Connection, cluster: int) -> int:
    query = "SELECT count(*) FROM examples WHERE cluster = ? AND state = 'learned'"
    return int(conn.execute(query, (cluster,)).fetchone()[0])


def _note_held(conn: sqlite3.Connection, held: Mapping[int, str]) -> None:
    """The reason of each that is left out, and none for those that no longer are."""
    rows = conn.execute(
        "SELECT id, reason FROM examples INDEXED BY examples_held"  # noqa: S608
        f" WHERE state = 'pending' AND reason != '' AND {TEACHABLE}"
    ).fetchall()
    before = {row["id"]: row["reason"] for row in rows}
    changed = [(held.get(n, ""), n) for n in held.keys() | before.keys()
               if held.get(n, "") != before.get(n, "")]  # fmt: skip
    conn.executemany("UPDATE examples SET reason = ? WHERE id = ?", changed)


def mark(db: Db, example_ids: Iterable[int], state: State, reason: str = "") -> None:
    """Move examples to a state. Those forgotten on request have no content and do not move."""
    if state not in get_args(State):
        raise ValueError(f"{state!r} is not a state of an example")
    with db.write() as conn:
        conn.execute(
            "UPDATE examples SET state = ?, reason = ? WHERE reason != ?"
            " AND id IN (SELECT value FROM json_each(?))",
            (state, reason, FORGOTTEN, ids(example_ids)),
        )


def set_surprise(db: Db, round_id: int, nll: Mapping[int, float]) -> None:
    """Keep how badly a round's adapter knows each example: its reply's NLL, in nats a token."""
    with db.write() as conn:
        conn.executemany(
            "UPDATE round_examples SET nll = ? WHERE round_id = ? AND example_id = ?",
            [(value, round_id, number) for number, value in nll.items()],
        )
        follow_surprise(conn, round_id)


def follow_surprise(conn: sqlite3.Connection, round_id: int) -> None:
    """What the last adapter that still stands measured, for a round's examples."""
    conn.execute(
        "UPDATE examples SET surprise = coalesce(("
        "  SELECT r.nll FROM round_examples r JOIN adapters a USING (round_id)"
        "  WHERE r.example_id = examples.id AND r.nll IS NOT NULL AND a.state = 'ok'"
        "  ORDER BY r.round_id DESC LIMIT 1), 0)"
        " WHERE id IN (SELECT example_id FROM round_examples WHERE round_id = ?)",
        (round_id,),
    )


_ROWS = "SELECT e.*, (SELECT text FROM chunks WHERE id = e.chunk_id) AS passage FROM examples e"


def _example(row: sqlite3.Row) -> Example:
    fields = {key: row[key] for key in row.keys() if not key.endswith("sha256")}  # noqa: SIM118
    return Example(**{**fields, "content": json.loads(row["content"])})
