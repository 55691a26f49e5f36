"""What examples are about, and which of them a later answer contradicts.

Knows rows; a topic and what was told about it are its caller's strings.
"""

from collections.abc import Iterable

from acclimate.store.db import Db, ids
from acclimate.store.route import TEACHABLE

SUPERSEDED = "superseded by "
# That a later example `n` says something else about the topic of `e`. That n's topic is not empty
# is said for SQLite, which takes the index of topics only then.
CONTRADICTS = (
    "n.topic = e.topic AND n.topic != '' AND n.id > e.id AND n.state != 'forgotten'"
    " AND instr(n.told, e.told) = 0 AND instr(e.told, n.told) = 0"
)

# That a learned reply `e` counts no more: a newer one to the same question, or about the same
# topic, says something else, or rules of a later version would not have let it in.
OUTDATED = (
    "(e.route IN ('retrieval', 'dropped')"  # noqa: S608
    " OR EXISTS (SELECT 1 FROM examples n WHERE n.source_id = e.source_id"
    " AND n.prompt_sha256 = e.prompt_sha256 AND n.id > e.id AND n.kind = 'exchange'"
    " AND e.kind = 'exchange' AND n.state != 'forgotten')"
    f" OR EXISTS (SELECT 1 FROM examples n WHERE {CONTRADICTS}))"
)


def without_topic(db: Db, limit: int) -> list[tuple[int, str, str, bool]]:
    """Exchanges whose topic was not looked at yet: number, question, reply, whether of a note."""
    rows = db.read().execute(
        "SELECT id, json_extract(content, '$.messages[#-2].content'),"
        " json_extract(content, '$.messages[#-1].content'), origin = 'note' FROM examples"
        " INDEXED BY examples_without_topic"
        " WHERE topic IS NULL AND kind = 'exchange' AND content != '{}' ORDER BY id LIMIT ?",
        (limit,),
    )
    return [(row[0], row[1], row[2], bool(row[3])) for row in rows.fetchall()]


def set_topics(db: Db, topics: Iterable[tuple[int, str, str]]) -> None:
    """Keep (number, topic, what was told about it). An empty topic contradicts nothing."""
    with db.write() as conn:
        conn.executemany(
            "UPDATE examples SET topic = ?, told = ? WHERE id = ?",
            [(topic, told, number) for number, topic, told in topics],
        )


def stands(db: Db, topic: str, told: str, chunk_id: int) -> bool:
    """Whether something was said about the topic already, or a passage's question has this answer.

    What waits for its topic does not count: see `without_topic`.
    """
    found = db.read().execute(
        "SELECT 1 FROM examples WHERE state != 'forgotten' AND topic = ? AND topic != '' UNION ALL"
        " SELECT 1 FROM examples WHERE state != 'forgotten' AND chunk_id = ? AND told != ''"
        " AND (instr(told, ?) OR instr(?, told)) LIMIT 1",
        (topic, chunk_id, told, told),
    )
    return found.fetchone() is not None


def outdated(db: Db, chunk_ids: Iterable[int]) -> set[int]:
    """Which of these passages are an exchange whose answer a later one contradicts.

    A note's own words are none: only what was asked and answered, in a chat or by study.
    """
    rows = db.read().execute(
        "SELECT c.id FROM chunks c JOIN examples e"  # noqa: S608
        " ON e.document_id = c.document_id AND e.line = c.start_line"
        " WHERE c.id IN (SELECT value FROM json_each(?)) AND e.kind = 'exchange'"
        " AND e.content != '{}'"
        " AND instr(c.text, json_extract(e.content, '$.messages[#-2].content'))"
        " AND instr(c.text, json_extract(e.content, '$.messages[#-1].content'))"
        f" AND EXISTS (SELECT 1 FROM examples n WHERE {CONTRADICTS})",
        (ids(chunk_ids),),
    )
    return {row[0] for row in rows.fetchall()}


def supersede(db: Db) -> int:
    """Of several answers to one topic the last counts: older ones that wait do so no more.

    How many. Only what a round may take is looked at. Older ones that are learned stay so, and are
    rehearsed no more (`replay`).
    """
    with db.write() as conn:
        return conn.execute(
            "UPDATE examples AS e INDEXED BY examples_counted"  # noqa: S608
            " SET state = 'forgotten', reason = ? || (SELECT max(n.id)"
            f" FROM examples n WHERE {CONTRADICTS})"
            f" WHERE e.state IN ('pending', 'held-out') AND e.{TEACHABLE}"
            f" AND EXISTS (SELECT 1 FROM examples n WHERE {CONTRADICTS})",
            (SUPERSEDED,),
        ).rowcount
