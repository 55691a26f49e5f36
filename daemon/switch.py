"""Moves `live`: the ledger and the engine together, and only to an adapter that is whole.

Knows files, hashes and names; does not know why it moves.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from acclimate.daemon import history
from acclimate.daemon.contexts import BASE, LIVE
from acclimate.daemon.engine import Engine
from acclimate.store import ledger, names
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError, AdapterError, NotFound, RoundError
from acclimate.store.files import Home, sha256_file, version_name

log = structlog.get_logger(__name__)
T = TypeVar("T")

# What `model` may say for the live adapter.
ALIASES = (LIVE, "acclimate")
# Adapters kept in memory beside the live one; the one that was loaded first goes first.
MAX_LOADED = 6


class Switch:
    """Without an engine it moves the ledger alone: the next start of the daemon follows it.

    Every method blocks and may be called from any thread.
    """

    def __init__(
        self, home: Home, db: Db, engine: Engine | None, base_sha256: str | None = None
    ) -> None:
        self._home = home
        self._db = db
        self._engine = engine
        self.base_sha256 = base_sha256
        self._moving = threading.RLock()
        # Held by whoever gives a new adapter its number, until it is in the ledger.
        self.publishing = threading.RLock()

    def set_live(self, name: str | None) -> dict[str, Any]:
        """Serve an adapter or "base"; None is the nearest whole ancestor of the live one.

        It is loaded first, so that a damaged adapter leaves everything as it was. Raises NotFound,
        AdapterError, RoundError (nothing to go back to).
        """
        with self._moving:
            version = self._before_live() if name is None else history.version_of(name)
            return self._move(version, lambda: ledger.set_live(self._db, version, "rollback"))

    def pin(self, name: str | None) -> dict[str, Any]:
        """Serve an adapter (None: the live one), whatever rounds give, until `unpin`."""
        with self._moving:
            version = ledger.live(self._db) if name is None else history.version_of(name)
            return self._move(version, lambda: ledger.pin(self._db, version))

    def unpin(self) -> dict[str, Any]:
        """Let accepted rounds become live again."""
        ledger.unpin(self._db)
        return {"live": history.name_of(ledger.live(self._db)), "pinned": False}

    def take_back(self, version: int, why: str) -> bool:
        """Serve the nearest whole ancestor of an adapter that is worse in use.

        False, and nothing is done, when the person has moved or pinned live meanwhile. Raises
        AdapterError when the ancestor cannot be loaded.
        """
        with self._moving:
            if ledger.live(self._db) != version or ledger.pinned(self._db):
                return False
            to = self._before_live()
            self._move(to, lambda: ledger.set_live(self._db, to, ledger.PROBATION, why))
        return True

    def accept(self, version: int, record: Callable[[], None]) -> None:
        """Record a round's adapter, which is in memory already; serve it unless one is pinned."""
        with self._moving:
            live = ledger.live(self._db)
            record()
            try:
                if ledger.live(self._db) == version:
                    self._serve(version)
            except AcclimateError:
                ledger.set_live(self._db, live, "repair")
                raise

    def retire(self, decide: Callable[[], T]) -> T:
        """Decide in the ledger that adapters are retired, and serve at once what is live then.

        An adapter that cannot be loaded gives way to its nearest whole ancestor.
        """
        with self._moving:
            done = decide()
            self._follow()
        return done

    def provide(self, engine: Engine, model: str) -> str:
        """The engine's name for a request's `model`, with its adapter in memory.

        `model` may be a name that an adapter was given. Raises NotFound, AdapterError.
        """
        if model in ALIASES:
            return LIVE
        try:
            version = history.version_of(model)
        except NotFound:
            version = names.version_of(self._db, model)
            if version is None:
                raise
            model = version_name(version)
        if version is not None and model not in engine.adapters:
            with self._moving:
                self.load(version)
        return model

    def beneath(self, engine: Engine, name: str) -> str:
        """What was there before rounds taught an adapter: the one from elsewhere that they began
        with, in memory, else the base. Raises AdapterError."""
        version = history.version_of(name)
        first = None if version is None else ledger.line(self._db, version)[-1]
        if first is None or ledger.adapter(self._db, first).round_id is not None:
            return BASE
        return self.provide(engine, version_name(first))

    def unname(self, name: str) -> int:
        """Take a name away, and let the engine forget the adapter unless it is live; its version.

        Raises NotFound.
        """
        with self._moving:
            version = names.take_away(self._db, name)
            loaded = version_name(version)
            if self._engine is not None and self._engine.live != loaded:
                with contextlib.suppress(NotFound):  # it was not in memory
                    self._engine.unload(loaded)
        return version

    def load(self, version: int | None) -> None:
        """Check an adapter against the ledger and bring it into memory, where an engine is."""
        if version is None:
            return
        a, name = ledger.adapter(self._db, version), version_name(version)
        if a.state != "ok":
            why = a.reason or "it was damaged"
            raise AdapterError(f"{name} is retired: {why}", "see: acclimate history")
        if self._engine is None or name in self._engine.adapters:
            return
        file = self._home.adapter_dir(version) / ledger.ADAPTER_FILE
        try:
            digest = sha256_file(file)
        except OSError as error:
            raise AdapterError(f"{name} cannot be read: {error.strerror}") from error
        if digest != a.sha256:
            raise AdapterError(f"{name} is damaged: its hash is not the one that was published")
        # llama.cpp itself would take an adapter of any model with the same shapes.
        base = a.card.get("base_sha256")
        if base and self.base_sha256 and base != self.base_sha256:
            raise AdapterError(
                f"{name} was learned on another base model", "acclimate models use THAT_MODEL"
            )
        self.make_room()
        try:
            self._engine.load(name, file, a.scale)
        except AcclimateError:
            # A round that was accepted meanwhile has loaded it.
            if name not in self._engine.adapters:
                raise

    def make_room(self) -> None:
        """Let go of what was loaded first, so that one more may come into memory."""
        if self._engine is None:
            return
        spare = [name for name in self._engine.adapters if name != self._engine.live]
        for name in spare[: max(0, len(spare) - MAX_LOADED + 1)]:
            self._engine.unload(name)

    def _move(self, version: int | None, record: Callable[[], None]) -> dict[str, Any]:
        self.load(version)
        live, pinned = ledger.live(self._db), ledger.pinned(self._db)
        record()
        try:
            self._serve(version)
        except AcclimateError:
            ledger.set_live(self._db, live, "repair")
            if not pinned:
                ledger.unpin(self._db)
            raise
        return {"live": history.name_of(version), "pinned": ledger.pinned(self._db)}

    def _follow(self) -> None:
        if self._engine is None:
            return
        while True:
            version = ledger.live(self._db)
            try:
                self.load(version)
                self._serve(version)
                break
            except AcclimateError as error:
                log.error("adapter_not_served", adapter=history.name_of(version), error=str(error))
                if version is None:
                    return
                ledger.set_live(self._db, ledger.whole_ancestor(self._db, version), "repair")
        retired = {version_name(a.version) for a in ledger.adapters(self._db) if a.state != "ok"}
        for name in retired.intersection(self._engine.adapters):
            self._engine.unload(name)

    def _serve(self, version: int | None) -> None:
        if self._engine is not None:
            self._engine.set_live(None if version is None else version_name(version))

    def _before_live(self) -> int | None:
        live = ledger.live(self._db)
        if live is None:
            raise RoundError("the base model is live: nothing was before it", "acclimate history")
        return ledger.whole_ancestor(self._db, live)
