"""The schema, as steps that each run once in a transaction of their own.

Knows tables, not what they are used for.
"""

import sqlite3
from typing import Any

from acclimate.store.errors import StoreError

_SET = "acclimate"  # by which sqlite_utils keeps what was applied
# AUTOINCREMENT everywhere that an id leaves the table (vectors, lineage): a deleted row's id must
# never name another one. Times are unix seconds and only shown; order comes from ids.
_SOURCES = """
CREATE TABLE sources (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('notes', 'chat', 'code', 'manual')),
    trust TEXT NOT NULL DEFAULT 'own',
    patterns TEXT NOT NULL DEFAULT '[]',
    state TEXT NOT NULL DEFAULT 'ok' CHECK (state IN ('ok', 'missing', 'removed')),
    device INTEGER,
    added_at REAL NOT NULL
);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id INTEGER NOT NULL REFERENCES sources(id),
    path TEXT NOT NULL,
    sha256 TEXT,
    size INTEGER,
    mtime_ns INTEGER,
    device INTEGER,
    state TEXT NOT NULL CHECK (state IN ('ok', 'refused', 'gone', 'forgotten')),
    reason TEXT NOT NULL DEFAULT '',
    seen_at REAL NOT NULL,
    UNIQUE (source_id, path)
);
CREATE INDEX documents_by_sha256 ON documents(source_id, sha256);
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id INTEGER NOT NULL REFERENCES sources(id),
    path TEXT NOT NULL,
    line INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX quarantine_by_path ON quarantine(source_id, path);
"""

_CHUNKS = """
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document_id INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    text TEXT NOT NULL,
    start_line INTEGER NOT NULL,
    end_line INTEGER NOT NULL,
    vector BLOB,
    UNIQUE (document_id, ordinal)
);
CREATE INDEX chunks_without_vector ON chunks(id) WHERE vector IS NULL;
CREATE VIRTUAL TABLE chunks_fts USING fts5(
    text, content='chunks', content_rowid='id', tokenize='porter unicode61'
);
CREATE TABLE deleted_vectors (chunk_id INTEGER PRIMARY KEY);
CREATE TRIGGER chunks_insert AFTER INSERT ON chunks BEGIN
    INSERT INTO chunks_fts(rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER chunks_delete AFTER DELETE ON chunks BEGIN
    INSERT INTO chunks_fts(chunks_fts, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT OR IGNORE INTO deleted_vectors SELECT old.id WHERE old.vector IS NOT NULL;
END;
CREATE TRIGGER chunks_update AFTER UPDATE OF text ON chunks BEGIN
    INSERT INTO chunks_fts(chunks_fts, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO chunks_fts(rowid, text) VALUES (new.id, new.text);
END;
"""

_EXAMPLES = """
CREATE TABLE examples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('exchange', 'preference')),
    content TEXT NOT NULL,
    prompt_sha256 TEXT NOT NULL,
    source_id INTEGER REFERENCES sources(id),
    document_id INTEGER REFERENCES documents(id) ON DELETE SET NULL,
    line INTEGER,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'learned', 'held-out', 'quarantined', 'forgotten')),
    reason TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL
);
CREATE INDEX examples_by_state ON examples(state, id);
CREATE INDEX examples_by_prompt ON examples(source_id, prompt_sha256);
CREATE INDEX examples_by_document ON examples(document_id);
"""

_LEDGER = """
CREATE TABLE rounds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER,
    state TEXT NOT NULL CHECK (state IN ('running', 'accepted', 'rejected', 'failed')),
    started_at REAL NOT NULL,
    ended_at REAL,
    seed INTEGER NOT NULL,
    measures TEXT NOT NULL DEFAULT '{}',
    reasons TEXT NOT NULL DEFAULT '[]',
    candidate_sha256 TEXT,
    error TEXT
);
CREATE TABLE round_examples (
    round_id INTEGER NOT NULL REFERENCES rounds(id),
    example_id INTEGER NOT NULL REFERENCES examples(id),
    role TEXT NOT NULL CHECK (role IN ('new', 'replay', 'held-out')),
    PRIMARY KEY (round_id, example_id)
) WITHOUT ROWID;
CREATE INDEX round_examples_by_example ON round_examples(example_id);
CREATE TABLE adapters (
    version INTEGER PRIMARY KEY,
    parent INTEGER REFERENCES adapters(version),
    round_id INTEGER NOT NULL REFERENCES rounds(id),
    sha256 TEXT NOT NULL,
    scale REAL NOT NULL,
    card TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'ok' CHECK (state IN ('ok', 'retired')),
    created_at REAL NOT NULL
);
CREATE TABLE swaps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    from_version INTEGER,
    to_version INTEGER,
    reason TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

_CONVERSATIONS = """
CREATE TABLE conversations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL
);
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    adapter TEXT,
    passages TEXT NOT NULL DEFAULT '[]',
    created_at REAL NOT NULL
);
CREATE INDEX messages_by_conversation ON messages(conversation_id, seq);
CREATE TABLE feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT REFERENCES messages(id) ON DELETE SET NULL,
    rating TEXT NOT NULL CHECK (rating IN ('good', 'bad', 'edit')),
    edit TEXT,
    prompt TEXT NOT NULL,
    reply TEXT NOT NULL,
    created_at REAL NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
);
"""

_CURATION = """
ALTER TABLE documents ADD COLUMN rules INTEGER NOT NULL DEFAULT 0;
ALTER TABLE documents ADD COLUMN redacted TEXT NOT NULL DEFAULT '{}';
ALTER TABLE examples ADD COLUMN route TEXT NOT NULL DEFAULT 'weights'
    CHECK (route IN ('weights', 'retrieval', 'preference', 'dropped'));
ALTER TABLE examples ADD COLUMN route_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE examples ADD COLUMN language TEXT NOT NULL DEFAULT '';
ALTER TABLE examples ADD COLUMN cluster INTEGER;
ALTER TABLE examples ADD COLUMN surprise REAL NOT NULL DEFAULT 0;
UPDATE examples SET route = 'preference' WHERE kind = 'preference';
CREATE INDEX examples_waiting ON examples(id, source_id, cluster)
    WHERE state = 'pending' AND route IN ('weights', 'preference');
CREATE INDEX examples_learned ON examples(sha256) WHERE state = 'learned';
CREATE INDEX examples_by_surprise ON examples(surprise) WHERE state = 'learned' AND surprise > 0;
CREATE INDEX examples_by_cluster ON examples(cluster, state);
CREATE TABLE minhash_bands (
    hash INTEGER NOT NULL,
    example_id INTEGER NOT NULL REFERENCES examples(id),
    PRIMARY KEY (hash, example_id)
) WITHOUT ROWID;
CREATE INDEX minhash_bands_by_example ON minhash_bands(example_id);
CREATE TRIGGER examples_emptied AFTER UPDATE OF content ON examples WHEN new.content = '{}' BEGIN
    DELETE FROM minhash_bands WHERE example_id = old.id;
END;
"""

_RECEIPTS = """
ALTER TABLE adapters ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE rounds ADD COLUMN content_sha256 TEXT NOT NULL DEFAULT '';
CREATE TABLE receipts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    removed TEXT NOT NULL,
    retired TEXT NOT NULL,
    live_before INTEGER,
    live INTEGER,
    unpinned INTEGER NOT NULL,
    round_ended INTEGER,
    relearn INTEGER NOT NULL,
    last_round INTEGER NOT NULL,
    cleared INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE receipt_examples (
    receipt_id INTEGER NOT NULL REFERENCES receipts(id),
    example_id INTEGER NOT NULL REFERENCES examples(id),
    PRIMARY KEY (receipt_id, example_id)
) WITHOUT ROWID;
CREATE TABLE hidden_passages (
    document_id INTEGER REFERENCES documents(id) ON DELETE CASCADE,
    words INTEGER NOT NULL,
    digest TEXT NOT NULL
);
CREATE INDEX hidden_passages_by_digest ON hidden_passages(digest);
CREATE INDEX hidden_passages_by_document ON hidden_passages(document_id);
"""

_STUDY = """
ALTER TABLE chunks ADD COLUMN derived_from INTEGER REFERENCES chunks(id) ON DELETE CASCADE;
ALTER TABLE chunks ADD COLUMN studied INTEGER NOT NULL DEFAULT 0;
CREATE INDEX chunks_by_origin ON chunks(derived_from) WHERE derived_from IS NOT NULL;
CREATE INDEX chunks_unstudied ON chunks(id) WHERE studied = 0;
ALTER TABLE examples ADD COLUMN origin TEXT NOT NULL DEFAULT 'said'
    CHECK (origin IN ('said', 'note'));
ALTER TABLE examples ADD COLUMN chunk_id INTEGER REFERENCES chunks(id) ON DELETE SET NULL;
ALTER TABLE examples ADD COLUMN weight REAL NOT NULL DEFAULT 1;
ALTER TABLE examples ADD COLUMN topic TEXT;
ALTER TABLE examples ADD COLUMN told TEXT NOT NULL DEFAULT '';
ALTER TABLE round_examples ADD COLUMN nll REAL;
CREATE INDEX examples_of_notes ON examples(weight, id) WHERE state = 'pending' AND origin = 'note';
CREATE INDEX examples_by_topic ON examples(topic) WHERE topic != '';
CREATE INDEX examples_without_topic ON examples(id) WHERE topic IS NULL;
CREATE INDEX examples_by_chunk ON examples(chunk_id) WHERE chunk_id IS NOT NULL;
CREATE TRIGGER examples_emptied_of_topic AFTER UPDATE OF content ON examples
    WHEN new.content = '{}' BEGIN
    UPDATE examples SET topic = '', told = '' WHERE id = old.id;
END;
"""

_PROBATION = """
ALTER TABLE swaps ADD COLUMN why TEXT NOT NULL DEFAULT '';
CREATE TABLE probation_losses (
    version INTEGER NOT NULL REFERENCES adapters(version),
    against INTEGER REFERENCES adapters(version),
    example_id INTEGER NOT NULL REFERENCES examples(id),
    before REAL NOT NULL,
    live REAL NOT NULL,
    PRIMARY KEY (version, example_id)
) WITHOUT ROWID;
CREATE INDEX probation_losses_by_example ON probation_losses(example_id);
CREATE TRIGGER examples_emptied_of_losses AFTER UPDATE OF content ON examples
    WHEN new.content = '{}' BEGIN
    DELETE FROM probation_losses WHERE example_id = old.id;
END;
"""

_INQUIRIES = """
CREATE TABLE inquiries (
    chunk_id INTEGER PRIMARY KEY REFERENCES chunks(id) ON DELETE CASCADE,
    base TEXT NOT NULL,
    asked INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    dropped TEXT NOT NULL
);
ALTER TABLE chunks ADD COLUMN by_model INTEGER NOT NULL DEFAULT 0;
"""

# What a long history would otherwise have to be searched through for.
_LONG_HISTORY = """
DROP INDEX chunks_unstudied;
CREATE INDEX chunks_by_study ON chunks(studied, id);
CREATE INDEX chunks_by_text ON chunks(substr(text, 1, 64));
CREATE INDEX rounds_by_state ON rounds(state, content_sha256);
CREATE INDEX adapters_by_round ON adapters(round_id);
DROP INDEX examples_waiting;
CREATE INDEX examples_waiting ON examples(source_id, id, cluster, origin)
    WHERE state = 'pending' AND route IN ('weights', 'preference');
DROP INDEX examples_by_surprise;
CREATE INDEX examples_by_surprise ON examples(surprise DESC, sha256)
    WHERE state = 'learned' AND surprise > 0;
DROP INDEX examples_of_notes;
CREATE INDEX examples_of_notes ON examples(weight DESC, id)
    WHERE state = 'pending' AND origin = 'note';
CREATE INDEX examples_held ON examples(reason) WHERE state = 'pending' AND reason != '';
CREATE INDEX examples_counted ON examples(state, route, source_id);
CREATE INDEX examples_in_conversation ON examples(id)
    WHERE json_array_length(content, '$.messages') > 2;
UPDATE examples SET topic = '' WHERE topic IS NULL AND kind = 'preference';
"""


# Topics are named by other rules now: those of one thing have to be named alike. And retrieval asks
# for the example at a passage's line, in a file of whatever length.
_TOPICS = """
DROP INDEX examples_by_document;
CREATE INDEX examples_by_document ON examples(document_id, line);
UPDATE examples SET topic = NULL, told = '' WHERE topic != '';
"""


# Vectors of a chunk's sentences as float16, one after the other; NULL where it is a single one.
# What has a vector already gets all of them anew.
_SENTENCES = """
ALTER TABLE chunks ADD COLUMN sentences BLOB;
UPDATE chunks SET vector = NULL WHERE vector IS NOT NULL;
"""


# By which a learned example is found from a question in other words: a unit vector as float16.
# `asks` is 0 where the example answers no question, so that nothing else answers in its place.
_CUES = """
CREATE TABLE cues (
    example_id INTEGER PRIMARY KEY REFERENCES examples(id) ON DELETE CASCADE,
    asks INTEGER NOT NULL,
    vector BLOB NOT NULL
);
CREATE TRIGGER examples_changed_under_cues AFTER UPDATE OF content ON examples BEGIN
    DELETE FROM cues WHERE example_id = old.id;
END;
"""

# `about`: the example whose question this one answers anew.
_UPDATES = """
ALTER TABLE examples ADD COLUMN about INTEGER REFERENCES examples(id);
CREATE INDEX examples_by_about ON examples(about) WHERE about IS NOT NULL;
ALTER TABLE chunks ADD COLUMN compared INTEGER NOT NULL DEFAULT 0;
UPDATE chunks SET compared = 1;
CREATE INDEX chunks_not_compared ON chunks(id) WHERE compared = 0;
"""

# An adapter from elsewhere was made by no round. SQLite drops a NOT NULL with its column only.
_ELSEWHERE = """
DROP INDEX adapters_by_round;
ALTER TABLE adapters RENAME COLUMN round_id TO made_by;
ALTER TABLE adapters ADD COLUMN round_id INTEGER REFERENCES rounds(id);
UPDATE adapters SET round_id = made_by;
ALTER TABLE adapters DROP COLUMN made_by;
CREATE INDEX adapters_by_round ON adapters(round_id);
CREATE TABLE adapter_names (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL REFERENCES adapters(version)
) WITHOUT ROWID;
"""


def m001_sources(db: Any) -> None:
    _run(db, _SOURCES)


def m002_chunks(db: Any) -> None:
    _run(db, _CHUNKS)


def m003_examples(db: Any) -> None:
    _run(db, _EXAMPLES)


def m004_ledger(db: Any) -> None:
    _run(db, _LEDGER)


def m005_conversations(db: Any) -> None:
    _run(db, _CONVERSATIONS)


def m006_curation(db: Any) -> None:
    _run(db, _CURATION)


def m007_receipts(db: Any) -> None:
    _run(db, _RECEIPTS)


def m008_study(db: Any) -> None:
    _run(db, _STUDY)


def m009_probation(db: Any) -> None:
    _run(db, _PROBATION)


def m010_inquiries(db: Any) -> None:
    _run(db, _INQUIRIES)


def m011_long_history(db: Any) -> None:
    _run(db, _LONG_HISTORY)


def m012_topics(db: Any) -> None:
    _run(db, _TOPICS)


def m013_sentences(db: Any) -> None:
    _run(db, _SENTENCES)


def m014_cues(db: Any) -> None:
    _run(db, _CUES)


def m015_updates(db: Any) -> None:
    _run(db, _UPDATES)


def m016_elsewhere(db: Any) -> None:
    _run(db, _ELSEWHERE)


STEPS = (
    m001_sources,
    m002_chunks,
    m003_examples,
    m004_ledger,
    m005_conversations,
    m006_curation,
    m007_receipts,
    m008_study,
    m009_probation,
    m010_inquiries,
    m011_long_history,
    m012_topics,
    m013_sentences,
    m014_cues,
    m015_updates,
    m016_elsewhere,
)


def migrate(conn: sqlite3.Connection) -> None:
    """Bring a database to this version's schema. Raises StoreError if it is newer."""
    if _is_current(conn):
        return
    from sqlite_utils import Database, Migrations  # a tenth of what a start takes

    db = Database(conn)
    steps = Migrations(_SET)
    for step in STEPS:
        steps()(step)
    unknown = {m.name for m in steps.applied(db)} - {step.__name__ for step in STEPS}
    if unknown:
        raise StoreError(
            f"the database was written by a newer Acclimate (step {max(unknown)})",
            "install that version, or choose another home",
        )
    if steps.pending(db):
        steps.apply(db)


def _is_current(conn: sqlite3.Connection) -> bool:
    applied = "SELECT name FROM _sqlite_migrations WHERE migration_set = ?"
    try:
        names = {name for (name,) in conn.execute(applied, (_SET,))}
    except sqlite3.OperationalError:  # a new file has no such table
        return False
    return names == {step.__name__ for step in STEPS}


def _run(db: Any, script: str) -> None:
    # executescript would commit the step's transaction, so statements go one at a time.
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""
