"""Whether the live adapter or the base answers: by what the question is like.

Knows the adapters' scope files, the embedder and conversations; moves nothing and keeps no text
but the vectors of the last few questions, in memory.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from acclimate.adapters.request import may_be_question
from acclimate.adapters.scope import Scope
from acclimate.adapters.snapshot import Taught
from acclimate.daemon.config import ScopeConfig
from acclimate.daemon.cueing import Cueing, asked_of, keys, lean
from acclimate.daemon.general import Embed, General
from acclimate.daemon.retrieve import MAX_QUERY_CHARS
from acclimate.store.errors import AcclimateError
from acclimate.store.files import Home, parse_version

log = structlog.get_logger(__name__)

SCOPE_FILE = "scope.json"
# Where nothing is known yet: what an adapter's share of general text may be taken for.
USUAL_SHARE = 0.5
LOOKED_AT = 8  # of a conversation, the user's last messages


class Scoping:
    """Scopes of one home's adapters. Every method blocks and may be called from any thread.

    `embed` gives vectors of unit length, (texts, dimensions); `embedder` names the model that does;
    `cueing` knows what each adapter was taught.
    """

    def __init__(
        self,
        home: Home,
        embed: Embed,
        embedder: str,
        general: General,
        cueing: Cueing,
        settings: ScopeConfig | None = None,
    ) -> None:
        self._home = home
        self._embed = embed
        self._embedder = embedder
        self._general = general
        self._cueing = cueing
        self._settings = settings or ScopeConfig()
        self._lock = threading.Lock()
        self._read: dict[str, Scope | None] = {}  # the one that was asked for last

    def fit(self, taught: Sequence[Taught]) -> Scope | None:
        """The scope of an adapter that was taught these; None where it cannot be told.

        Takes seconds at its first call in a home, which embeds the general texts.
        """
        rows = [example for example in taught if asked_of(example)]
        if not rows or not self._settings.enabled:
            return None
        try:
            general = self._general.vectors()
            leaning = self._leaning(general, keys(rows, self._embed))
            questions = self._embed([asked_of(example) for example in rows])
            return Scope.fit(questions, general, self._embedder, leaning)
        except AcclimateError as error:
            log.warning("no_scope", error=str(error))
            return None

    def _leaning(
        self, general: NDArray[np.float32], taught: NDArray[np.float32]
    ) -> NDArray[np.int8]:
        """Where each of the general texts would lean, were it not one of them; (texts,)."""
        alike = general @ general.T
        np.fill_diagonal(alike, -1.0)
        questions = [may_be_question(text) for text in self._general.texts()]
        return lean(alike.max(1), (general @ taught.T).max(1)) * np.array(questions, np.int8)

    def covers(self, adapter: str, messages: Sequence[Mapping[str, str]]) -> bool:
        """Whether the adapter is to answer; the base is where none of what the user said lately is
        like what it was taught.

        One that has no scope, or one of another embedder, answers everything.
        """
        scope = self._of(adapter) if self._settings.enabled else None
        if scope is None:
            return True
        said = (m["content"].strip() for m in reversed(messages) if m["role"] == "user")
        asked = [text[:MAX_QUERY_CHARS] for text in islice(filter(None, said), LOOKED_AT)]
        try:
            # The last one first: it decides most often, and retrieval wants its vector as well.
            return not asked or any(self._inside(scope, adapter, text) for text in asked)
        except (AcclimateError, sqlite3.Error, ValueError) as error:
            log.warning("scope_not_asked", error=str(error))
            return True

    def _inside(self, scope: Scope, adapter: str, text: str) -> bool:
        leaning = self._cueing.leaning(adapter, text)
        return leaning > 0 or (leaning == 0 and scope.covers(self._embed([text])[0]))

    def share(self, adapter: str | None) -> float:
        """How much of general text an adapter answers, 0 to 1; what is usual where None is given;
        1 for one without a scope."""
        if not self._settings.enabled:
            return 1.0
        if adapter is None:
            return USUAL_SHARE
        scope = self._of(adapter)
        return 1.0 if scope is None else scope.general

    def _of(self, adapter: str) -> Scope | None:
        with self._lock:
            if adapter not in self._read:
                try:
                    data = self._path(adapter).read_bytes()
                except OSError:
                    return None  # none was made, or the home's drive is away
                self._read = {adapter: self._scope(adapter, data)}
            return self._read[adapter]

    def _path(self, adapter: str) -> Path:
        return self._home.adapter_dir(parse_version(adapter)) / SCOPE_FILE

    def _scope(self, adapter: str, data: bytes) -> Scope | None:
        try:
            scope = Scope.from_json(data)
        except ValueError as error:
            log.warning("scope_not_read", adapter=adapter, error=str(error))
            return None
        return scope if scope.embedder == self._embedder else None
