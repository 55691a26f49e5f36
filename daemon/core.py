"""The operations of a home, whoever asks: the HTTP routes, and through them every command.

Puts the parts together; every method blocks, takes and gives JSON-able values, and knows no HTTP.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from acclimate.adapters.prompt import Prompt
from acclimate.daemon import history, importing, status
from acclimate.daemon.bodies import ChatRequest, TextRequest
from acclimate.daemon.completion import BadRequest, Completion, Reply, passage_of
from acclimate.daemon.config import Config
from acclimate.daemon.cueing import Cueing
from acclimate.daemon.embed import Embedder
from acclimate.daemon.embeddings import EmbeddingRequest, embeddings
from acclimate.daemon.engine import Engine
from acclimate.daemon.forgetting import Asked, forget_all, receipt_of
from acclimate.daemon.inquire import Inquirer
from acclimate.daemon.naming import named
from acclimate.daemon.reader import Reader
from acclimate.daemon.retrieve import Retriever
from acclimate.daemon.schedule import Schedule
from acclimate.daemon.scoping import Scoping
from acclimate.daemon.stream import Stream
from acclimate.daemon.switch import Switch
from acclimate.store import buffer, conversations, ledger, receipts, sources
from acclimate.store import names as adapter_names
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError, EngineError, NotFound
from acclimate.store.files import Home, version_name
from acclimate.store.index import Index
from acclimate.store.ingest import add_bytes
from acclimate.store.sources import Source


class NotRunning(EngineError):
    """Only the daemon has an engine; a command that found none running has not."""

    def __init__(self, message: str = "the daemon is not running") -> None:
        super().__init__(message, "start it with: acclimate run")


class RoundsLike(Protocol):
    """What is needed of `rounds.Rounds`."""

    def start(self, reason: str = ...) -> int: ...
    def relearn(self) -> int | None: ...
    def current(self) -> dict[str, Any] | None: ...
    def cancel(self, round_id: int) -> None: ...
    def interrupt(self, why: str) -> None: ...


class Core:
    """One home and the parts that run on it. Safe to share between threads.

    `engine`, `prompt`, `rounds` and `schedule` are None where no daemon runs; what needs them
    raises NotRunning. So is `inquirer`, and where the base is not to write questions. `on_sources`
    hears of every source that was added, removed or given a text.
    """

    def __init__(
        self,
        home: Home,
        config: Config,
        db: Db,
        index: Index,
        *,
        engine: Engine | None = None,
        prompt: Prompt | None = None,
        retriever: Retriever | None = None,
        rounds: RoundsLike | None = None,
        schedule: Schedule | None = None,
        on_sources: Callable[[Source], None] = lambda _source: None,
        switch: Switch | None = None,
        inquirer: Inquirer | None = None,
        scoping: Scoping | None = None,
        cueing: Cueing | None = None,
        reader: Reader | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.home = home
        self.config = config
        self.db = db
        self.index = index
        self.engine = engine
        self.prompt = prompt
        self.retriever = retriever or Retriever(db, index, None, config.retrieval)
        self.rounds = rounds
        self.schedule = schedule
        self.inquirer = inquirer
        self.scoping = scoping
        self.cueing = cueing
        self.reader = reader
        self.embedder = embedder
        self.port: int | None = None  # once it is served
        self._on_sources = on_sources
        self.switch = switch or Switch(home, db, engine)
        self.started = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether this is the daemon, not a command that found none."""
        return self.engine is not None

    # Answering

    def chat(self, asked: ChatRequest) -> Reply:
        """Begin a reply. Raises NotFound (no such model), BadRequest, EngineError."""
        engine = self._require_engine()
        return self._completion(engine).start(asked, self.switch.provide(engine, asked.model))

    def text(self, asked: TextRequest) -> list[list[Stream]]:
        """Begin to go on with texts. Raises NotFound (no such model), BadRequest, EngineError."""
        engine = self._require_engine()
        return self._completion(engine).text(asked, self.switch.provide(engine, asked.model))

    def keep(self, reply: Reply, text: str) -> dict[str, Any]:
        """Save a finished exchange; gives the answer's `acclimate` object."""
        return self._completion(self._require_engine()).finish(reply, text)

    def fingerprint(self, adapter: str) -> str:
        """What decides a reply beside the request: the base's hash and the adapter."""
        return f"{(self.switch.base_sha256 or 'unknown')[:12]}-{adapter}"

    def _completion(self, engine: Engine) -> Completion:
        if self.prompt is None:
            raise NotRunning()
        return Completion(
            self.db,
            self.retriever,
            engine,
            self.prompt,
            self.scoping,
            self.cueing,
            self.reader,
            lambda adapter: self.switch.beneath(engine, adapter),
        )

    def embeddings(self, asked: EmbeddingRequest) -> dict[str, Any]:
        """Vectors of texts. Raises NotFound (no such model), BadRequest, EngineError."""
        if self.embedder is None:
            raise NotRunning()
        return embeddings(asked, self.embedder, self.config.models.embedder)

    def models(self) -> list[dict[str, Any]]:
        """What `model` may be: live, base, and every adapter that is whole, by its names too."""
        live = ledger.live(self.db)
        adapters = [a for a in ledger.adapters(self.db) if a.state == "ok"]
        made = {a.version: int(a.created_at) for a in adapters}
        names: list[tuple[str, int | None]] = [("live", live), ("base", None)]
        names += [(version_name(a.version), a.version) for a in reversed(adapters)]
        names += [(n, v) for n, v in adapter_names.names(self.db).items() if v in made]
        return [
            {
                "id": name,
                "object": "model",
                "created": made.get(version or 0, 0),
                "owned_by": "acclimate",
                "acclimate": {"adapter": history.name_of(version)},
            }
            for name, version in names
        ]

    def model(self, name: str) -> dict[str, Any]:
        """One of them. Raises NotFound."""
        found = next((model for model in self.models() if model["id"] == name), None)
        if found is None:
            raise NotFound(f"there is no model {name[:40]}", "see: acclimate history")
        return found

    def load(self, name: str) -> None:
        """Bring what `model` may be into memory. Raises NotFound, AdapterError, EngineError."""
        self.switch.provide(self._require_engine(), name)

    def search(self, query: str, k: int) -> list[dict[str, Any]]:
        """Passages, best first."""
        return [passage_of(hit) for hit in self.retriever.search(query, k)]

    def _require_engine(self) -> Engine:
        if self.engine is None:
            raise NotRunning()
        return self.engine

    # Sources and examples

    def status(self) -> dict[str, Any]:
        """What `status` shows."""
        return status.status(self)

    def sources(self) -> list[dict[str, Any]]:
        """The watched folders."""
        return status.source_list(self.db)

    def add_source(self, path: str, kind: str, ignore: Sequence[str]) -> dict[str, Any]:
        """Watch a folder, from now on. Raises SourceError, BadRequest."""
        folder = _absolute(path)
        try:
            source = sources.add_source(
                self.db,
                folder,
                kind,  # type: ignore[arg-type]
                ignore,
                relative=self.home.portable,
            )
        except (ValueError, OSError) as error:
            raise BadRequest(str(error), "acclimate watch add --help", param="path") from None
        self._on_sources(source)
        return next(row for row in self.sources() if row["id"] == source.id)

    def remove_source(self, path: str | None, source_id: int | None) -> dict[str, Any]:
        """Watch a folder no longer. Raises NotFound."""
        watched = sources.list_sources(self.db)
        wanted = None if path is None else _absolute(path).resolve()
        found = next((s for s in watched if s.id == source_id or s.path == wanted), None)
        if found is None:
            named = path if path is not None else f"source {source_id}"
            raise NotFound(f"{named} is not watched", "see: acclimate watch list")
        sources.remove_source(self.db, found.id)
        self._on_sources(found)
        return {"id": found.id, "path": found.path.as_posix(), "removed": True}

    def add_text(self, name: str, text: str, kind: str | None) -> dict[str, Any]:
        """Take one file's text into buffer and index. Raises BadRequest when it cannot be used."""
        data = text.encode()
        result = add_bytes(
            self.db,
            named(name, kind, data),
            data,
            max_file_bytes=self.config.watch.max_file_bytes,
        )
        if result.outcome == "refused":
            raise BadRequest(f"{name}: {result.reason}", "nothing was taken from it", param="text")
        self._on_sources(sources.manual_source(self.db))
        bad = [q for q in status.quarantined(self.db, 1000) if q["path"] == result.path]
        return {
            "path": result.path,
            "outcome": result.outcome,
            "document_id": result.document_id,
            "chunks": result.chunks,
            "examples": result.examples,
            "bad_lines": result.bad_lines,
            "redacted": result.redacted,
            "quarantined": [{"line": q["line"], "reason": q["reason"]} for q in reversed(bad)],
        }

    def examples(self, state: str | None, limit: int, route: str | None) -> list[dict[str, Any]]:
        """The latest examples, newest first, each with its first words and where it goes."""
        return [
            {
                "id": e.id,
                "kind": e.kind,
                "state": e.state,
                "reason": e.reason,
                "route": e.route,
                "route_reason": e.route_reason,
                "cluster": e.cluster,
                "language": e.language,
                "origin": e.origin,
                "source": history.source_name(self.db, e.source_id),
                "line": e.line,
                "created_at": e.created_at,
                "text": history.preview(e.content),
            }
            for e in buffer.examples(self.db, state, limit, route)  # type: ignore[arg-type]
        ]

    def quarantined(self, limit: int) -> list[dict[str, Any]]:
        """The latest lines that could not be used."""
        return status.quarantined(self.db, limit)

    def forget(self, asked: Asked) -> dict[str, Any]:
        """Take something back, out of adapters too. Raises NotFound."""
        return forget_all(self, asked)

    def receipts(self, limit: int) -> list[dict[str, Any]]:
        """What was forgotten, newest first, and how far the rest is learned again."""
        return [receipt_of(r) for r in receipts.receipts(self.db, limit)]

    def receipt(self, number: int) -> dict[str, Any]:
        """One receipt. Raises NotFound."""
        return receipt_of(receipts.receipt(self.db, number))

    # Rounds and history

    def import_adapter(self, path: str, name: str | None, **how: bool) -> dict[str, Any]:
        """Take in an adapter from elsewhere, which is not made live; its row.

        Raises BadRequest, NotFound, AdapterError, ModelError, Busy.
        """
        file = _absolute(path)
        version = importing.take(self.home, self.config, self.db, self.switch, file, name, **how)
        return history.show(self.db, version_name(version))

    def start_round(self) -> dict[str, Any]:
        """Begin a round now. Raises NotRunning, RoundError."""
        return {"round": self._require_rounds().start("manual")}

    def rounds_list(self, limit: int) -> list[dict[str, Any]]:
        """The latest rounds, newest first."""
        progress = self.rounds.current() if self.rounds else None
        return [history.round_of(r, progress) for r in ledger.rounds(self.db, limit)]

    def round(self, round_id: int) -> dict[str, Any]:
        """One round: its state, its progress while it runs, its verdict. Raises NotFound."""
        progress = self.rounds.current() if self.rounds else None
        found = history.find_round(self.db, round_id)
        return {
            **history.round_of(found, progress),
            "adapter": history.adapter_made_by(self.db, round_id),
        }

    def cancel_round(self, round_id: int) -> dict[str, Any]:
        """End the running round. Raises NotFound, RoundError when it does not run."""
        history.find_round(self.db, round_id)
        self._require_rounds().cancel(round_id)
        return {"round": round_id, "cancelled": True}

    def _require_rounds(self) -> RoundsLike:
        if self.rounds is None:
            raise NotRunning()
        return self.rounds

    # Feedback

    def add_feedback(self, message_id: str | None, rating: str, edit: str | None) -> dict[str, Any]:
        """Keep what the person thinks of a reply (None: of the last one). Raises NotFound."""
        if message_id is None:
            last = conversations.last_message(self.db)
            if last is None:
                raise NotFound("there is no reply yet", "acclimate chat")
            message_id = last.id
        try:
            number = conversations.add_feedback(
                self.db,
                message_id,
                rating,  # type: ignore[arg-type]
                edit,
            )
        except ValueError as error:
            raise BadRequest(str(error), param="edit") from None
        return {"feedback": number, "message_id": message_id, "rating": rating}

    def feedback(self, limit: int) -> list[dict[str, Any]]:
        """The latest feedback, newest first."""
        return [
            {
                "id": f.id,
                "message_id": f.message_id,
                "rating": f.rating,
                "edit": f.edit,
                "reply": f.reply,
                "prompt": f.prompt,
                "created_at": f.created_at,
                "used": f.used,
            }
            for f in conversations.list_feedback(self.db, limit=limit)
        ]

    # Operations

    def health(self) -> dict[str, Any]:
        """Whether it serves; asks the database only where there is no engine."""
        alive = self.engine is None or self.engine.alive()
        if self.engine is not None:
            live: str | None = self.engine.live
        else:
            try:
                live = history.name_of(ledger.live(self.db))
            except (AcclimateError, sqlite3.Error):
                live = None
        return {
            "status": "ok" if alive else "failing",
            "live": live,
            "version": status.program_version(),
            "engine": self.engine is not None,
        }


def _absolute(path: str) -> Path:
    folder = Path(path)
    if not folder.is_absolute() or "\0" in path:
        raise BadRequest(
            "the path must be absolute", "the daemon runs in another folder", param="path"
        )
    return folder
