"""Numbers for Prometheus: requests, tokens, examples, the index. Names and counts, no text.

Reads the parts when it is asked; keeps only the counters of requests itself.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from acclimate.daemon.core import Core
from acclimate.daemon.decode import DURATIONS
from acclimate.store import buffer, ledger

_ENGINE_COUNTERS = {
    "prompt_tokens": "Prompt tokens",
    "cached_tokens": "Prompt tokens whose state was reused",
    "generated_tokens": "Tokens generated",
    "guessed_tokens": "Tokens guessed by prompt lookup",
    "held_tokens": "Guesses that were right",
    "finished": "Replies finished",
    "cancelled": "Replies that the client left",
    "failed": "Replies that failed",
    "swaps": "Moves of live in the engine",
}
_ENGINE_DURATIONS = {
    "first_token": "From a request to the first token of its reply",
    "reply": "From a request to the last token of its reply",
}
_ENGINE_GAUGES = {"active": "Replies being written", "waiting": "Requests that wait"}


class Metrics:
    """A registry of its own, so that nothing else in the process gets into it."""

    def __init__(self, core: Core) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Parts(core))
        self._requests = Counter(
            "acclimate_requests",
            "HTTP requests",
            ["method", "route", "status"],
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All metrics in Prometheus' text format; blocks on the database."""
        return generate_latest(self._registry)

    def count(self, method: str, route: str, status: int) -> None:
        """One request was answered."""
        self._requests.labels(method, route, str(status)).inc()


class _Parts(Collector):
    def __init__(self, core: Core) -> None:
        self._core = core

    def collect(self) -> Iterator[Metric]:
        core = self._core
        if core.engine is not None:
            stats = core.engine.stats()
            for name, text in _ENGINE_COUNTERS.items():
                yield CounterMetricFamily(f"acclimate_engine_{name}", text, value=stats[name])
            for name, text in _ENGINE_GAUGES.items():
                yield GaugeMetricFamily(f"acclimate_engine_{name}", text, value=stats[name])
            for name, text in _ENGINE_DURATIONS.items():
                yield _histogram(f"acclimate_engine_{name}_seconds", text, stats[name])
        examples = GaugeMetricFamily("acclimate_examples", "Examples by state", labels=["state"])
        for state, count in buffer.counts(core.db).items():
            examples.add_metric([state], count)
        yield examples
        yield GaugeMetricFamily("acclimate_index_vectors", "Vectors", value=core.index.size)
        live = ledger.live(core.db)
        yield GaugeMetricFamily("acclimate_live_version", "Live adapter, 0: base", value=live or 0)


def _histogram(name: str, text: str, found: Mapping[str, Any]) -> HistogramMetricFamily:
    bounds = [*map(str, DURATIONS), "+Inf"]
    buckets = list(zip(bounds, accumulate(found["counts"]), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=found["seconds"])


class Counted:
    """ASGI middleware that counts answers by route, not by path: paths name things."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.count(scope["method"], route, message["status"])
            await send(message)

        await self._app(scope, receive, counting)
