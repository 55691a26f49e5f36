"""What must hold of a home after its daemon was killed, whatever it was doing.

Looks with sqlite3, hashes and HTTP; uses none of the code that made the promises.
"""

import hashlib
import json
import re
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from real_daemon import RealDaemon

NAME = re.compile(r"What is my dog (\S+) called\?")


@dataclass
class Findings:
    """What does not hold, in words."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def violations(self) -> int:
        return len(self.lost) + len(self.doubled) + len(self.other)


@dataclass
class Promised:
    """What the daemon has acknowledged, and what the disk says that it must find."""

    watched: Path
    files: dict[Path, list[str]] = field(default_factory=dict)  # the examples in each
    bad: set[Path] = field(default_factory=set)  # files that have one bad line
    names: set[str] = field(default_factory=set)  # examples that were acknowledged
    unsure: dict[str, str] = field(default_factory=dict)  # sent, not answered: file → text
    sent: set[str] = field(default_factory=set)  # every example that ever was anywhere
    messages: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=lambda: {"base"})  # what may be live
    round_open: bool = False  # a new version may be live as well
    said: dict[str, str] = field(default_factory=dict)  # version → its reply


class Look:
    """Everything that must hold, seen in one database and the folders beside it."""

    def __init__(
        self, home: Path, promised: Promised, conn: sqlite3.Connection, found: Findings
    ) -> None:
        self.home = home
        self.promised = promised
        self.conn = conn
        self.found = found

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self.conn.execute(sql, values).fetchall()

    def stopped(self) -> None:
        """What must hold at the very moment of the kill."""
        self._whole()
        try:
            self.conn.execute(
                "INSERT INTO chunks_fts(chunks_fts, rank) VALUES('integrity-check',1)"
            )
        except sqlite3.DatabaseError as error:
            self.found.other.append(f"full-text index: {error}")
        self._examples()
        self._ledger()
        self._adapters(restarted=False)

    def running(self, daemon: RealDaemon) -> None:
        """What must hold once it serves again."""
        self._wait_until_read()
        self._whole()
        self._examples()
        self._documents()
        self._ledger()
        self._adapters(restarted=True)
        self._served(daemon)
        if left := self.rows("SELECT id FROM rounds WHERE state = 'running'"):
            self.found.other.append(f"rounds {left} run for ever")
        rounds = self.home / "cache" / "rounds"
        if rounds.is_dir() and (names := [p.name for p in rounds.iterdir()]):
            self.found.other.append(f"left in cache/rounds: {names}")

    def _whole(self) -> None:
        for pragma in ("integrity_check", "foreign_key_check"):
            found = [row for row in self.rows(f"PRAGMA {pragma}") if row != ("ok",)]
            if found:
                self.found.other.append(f"{pragma}: {found[:3]}")

    def _examples(self) -> None:
        found: Counter[str] = Counter()
        for content, state in self.rows("SELECT content, state FROM examples"):
            messages = json.loads(content)["messages"]
            match = NAME.fullmatch(messages[0]["content"])
            name = match[1] if match else "?"
            if messages[-1]["content"] != f"Rex {name}." or name not in self.promised.sent:
                self.found.other.append(f"an example that nobody gave: {name}")
            if state not in ("pending", "learned", "held-out"):
                self.found.lost.append(f"example {name} is {state}")
            found[name] += 1
        self.found.lost += [f"example {n}" for n in sorted(self.promised.names - set(found))]
        self.found.doubled += [f"example {n}" for n, times in sorted(found.items()) if times > 1]
        chunks = self._chunks()
        self.found.doubled += [f"chunk {n}" for n, times in sorted(chunks.items()) if times > 1]
        # Files may go; what was handed over stays in the index.
        given = {n for n in self.promised.names if not n.startswith("f")}
        self.found.lost += [f"chunk {n}" for n in sorted(given - set(chunks))]
        ids = Counter(row[0] for row in self.rows("SELECT id FROM messages"))
        missing = sum(m not in ids for m in self.promised.messages)
        if missing:
            self.found.lost.append(f"{missing} replies")

    def _chunks(self) -> Counter[str]:
        return Counter(
            name for (text,) in self.rows("SELECT text FROM chunks") for name in NAME.findall(text)
        )

    def _files(self) -> tuple[set[str], set[str]]:
        """Names of files as the disk has them and as the database has them."""
        here = {path.name for path in self.promised.watched.glob("*.jsonl")}
        known = self.rows(
            "SELECT d.path FROM documents d JOIN sources s ON s.id = d.source_id"
            " WHERE s.kind = 'chat' AND d.state = 'ok'"
        )
        return here, {row[0] for row in known}

    def _wait_until_read(self) -> None:
        """The scan at the start is the truth; it takes a moment."""
        end = time.monotonic() + 30
        wanted = {n for names in self.promised.files.values() for n in names}
        while time.monotonic() < end:
            here, known = self._files()
            if here == known and wanted <= set(self._chunks()):
                break
            time.sleep(0.1)
        self.promised.names |= wanted

    def _documents(self) -> None:
        here, known = self._files()
        self.found.lost += [f"file {n}" for n in sorted(here - known)]
        self.found.other += [f"file {n} is gone but kept" for n in sorted(known - here)]
        wanted = {n for names in self.promised.files.values() for n in names}
        self.found.lost += [f"chunk {n}" for n in sorted(wanted - set(self._chunks()))]
        bad = Counter(row[0] for row in self.rows("SELECT path FROM quarantine"))
        for path in sorted({*bad, *(path.name for path in self.promised.bad)}):
            expected = int(any(p.name == path for p in self.promised.bad))
            if bad[path] > expected:
                self.found.doubled.append(f"bad line of {path}")
            elif bad[path] < expected:
                self.found.lost.append(f"bad line of {path}")

    def _live(self) -> int | None:
        row = self.conn.execute("SELECT value FROM settings WHERE key = 'live'").fetchone()
        return json.loads(row[0]) if row else None

    def _ledger(self) -> None:
        """`live`, the chain of swaps, and what counts as learned."""
        live = self._live()
        at = None
        for before, after in self.rows("SELECT from_version, to_version FROM swaps ORDER BY id"):
            if before != at:
                self.found.other.append(f"a swap begins at {before}, the one before ended at {at}")
            at = after
        if at != live:
            self.found.other.append(f"live is {live}, the last swap went to {at}")
        new = self.promised.round_open and _name(live) not in self.promised.versions
        if _name(live) not in self.promised.live and not new:
            allowed = sorted(self.promised.live)
            self.found.other.append(f"live is {_name(live)}, acknowledged was one of {allowed}")
        parents = dict(self.rows("SELECT version, parent FROM adapters"))
        carried: set[int] = set()
        version = live
        while version is not None:
            carried |= {
                row[0]
                for row in self.rows(
                    "SELECT e.example_id FROM round_examples e JOIN adapters a USING (round_id)"
                    " WHERE a.version = ? AND e.role = 'new'",
                    version,
                )
            }
            version = parents[version]
        learned = {row[0] for row in self.rows("SELECT id FROM examples WHERE state = 'learned'")}
        if learned != carried:
            self.found.other.append(f"{len(learned ^ carried)} examples are learned in part")

    def _adapters(self, *, restarted: bool) -> None:
        """Rows against folders, and every file against its hash."""
        folder = self.home / "adapters"
        here = {path.name for path in folder.iterdir()}
        rows = self.rows("SELECT version, sha256, state, card FROM adapters")
        known = {_name(version) for version, *_ in rows}
        self.found.lost += [f"adapter {v}" for v in sorted(self.promised.versions - known)]
        if restarted and here != known:
            self.found.other.append(f"folders {sorted(here)} for rows {sorted(known)}")
        for version, sha256, state, card in rows:
            name = _name(version)
            files = {"adapter.gguf": sha256, **json.loads(card)["files"]}
            wrong = [f for f, digest in files.items() if _sha256(folder / name / f) != digest]
            if wrong or state != "ok":
                self.found.other.append(f"{name} is {state}, not whole: {wrong}")

    def _served(self, daemon: RealDaemon) -> None:
        """What answers is what the ledger says, and it says what it always said."""
        live = _name(self._live())
        health = daemon.call("GET", "/health")
        if (health["status"], health["live"]) != ("ok", live):
            self.found.other.append(f"/health says {health['live']}, the ledger {live}")
        versions = [_name(row[0]) for row in self.rows("SELECT version FROM adapters")]
        for model in dict.fromkeys(["live", live, *versions[-2:]]):
            try:
                reply = daemon.ask(model, 12, store=False)
            except httpx.HTTPError as error:
                self.found.other.append(f"{model} does not answer: {error}")
                continue
            wanted = live if model == "live" else model
            text = reply["choices"][0]["message"]["content"]
            if reply["acclimate"]["adapter"] != wanted:
                self.found.other.append(f"{reply['acclimate']['adapter']} answered for {model}")
            if self.promised.said.setdefault(wanted, text) != text:
                self.found.other.append(f"{wanted} answers otherwise than before")
        self._found_by_search(daemon)
        self.promised.live = {live}
        self.promised.versions |= set(versions)
        self.promised.round_open = False

    def _found_by_search(self, daemon: RealDaemon) -> None:
        """What was handed over last is found, and once."""
        given = [n for n in self.promised.names if not n.startswith("f")]
        for name in given and [max(given, key=lambda n: n[-5:])]:
            hits = daemon.call("POST", "/v1/search", {"query": name, "k": 10})["hits"]
            times = sum(name in NAME.findall(hit["text"]) for hit in hits)
            if times != 1:
                (self.found.lost if times == 0 else self.found.doubled).append(f"hit {name}")


def _name(version: int | None) -> str:
    return "base" if version is None else f"v{version:04d}"


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
