"""The ledger as `history`, `show` and `diff` tell it, in JSON-able dicts.

Reads the store only; knows no engine.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from acclimate.store import buffer, carried, ledger, names, sources
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError, NotFound
from acclimate.store.files import parse_version, version_name

BASE = "base"
PREVIEW_CHARS = 80


def name_of(version: int | None) -> str:
    """7 → "v0007", None → "base"."""
    return BASE if version is None else version_name(version)


def version_of(name: str) -> int | None:
    """ "v0007" → 7, "base" → None. Raises NotFound for anything else."""
    if name == BASE:
        return None
    try:
        version = parse_version(name)
    except ValueError:
        version = 0
    if not 0 < version < 2**63:
        raise NotFound(f"there is no adapter {name[:40]}", "see: acclimate history")
    return version


def history(db: Db, limit: int = 50) -> dict[str, Any]:
    """Adapters, rounds (also those that were rejected) and swaps, each newest first."""
    live = ledger.live(db)
    lost = ledger.taken_back(db)
    adapters = ledger.adapters(db, limit)[::-1]
    made_by = ledger.rounds_of(db, (a.round_id for a in adapters if a.round_id is not None))
    called = _called(db)
    return {
        "live": name_of(live),
        "pinned": ledger.pinned(db),
        "adapters": [
            {
                **adapter_of(a, made_by.get(a.round_id or 0), live, lost.get(a.version)),
                "names": called.get(a.version, []),
            }
            for a in adapters
        ],
        "rounds": [round_of(r) for r in ledger.rounds(db, limit)],
        "swaps": [
            {
                "id": swap.id,
                "from": name_of(swap.from_version),
                "to": name_of(swap.to_version),
                "reason": swap.reason,
                "why": swap.why,
                "at": swap.at,
            }
            for swap in ledger.swaps(db, limit)
        ],
    }


def notice(db: Db) -> str:
    """What the program did with live last, where nobody asked for it: that it took one back."""
    last = ledger.swaps(db, 1)
    if not last or last[0].reason != ledger.PROBATION:
        return ""
    return f"{name_of(last[0].from_version)} {_taken_back(last[0])}"


def _taken_back(swap: ledger.Swap) -> str:
    return f"rolled back to {name_of(swap.to_version)}: {swap.why}"


def adapter_of(
    a: ledger.Adapter, made_by: ledger.Round | None, live: int | None, lost: ledger.Swap | None
) -> dict[str, Any]:
    """One adapter as a row of `history`; `lost` is the swap that took it back. `imported` says
    where it came from, of one that no round made."""
    return {
        "version": name_of(a.version),
        "parent": name_of(a.parent),
        "round": a.round_id,
        "imported": a.card.get("imported") if a.round_id is None else None,
        "live": a.version == live,
        "state": a.state,
        "retired": a.reason,
        "taken_back": "" if lost is None else _taken_back(lost),
        "scale": a.scale,
        "sha256": a.sha256,
        "created_at": a.created_at,
        "examples": made_by.counts if made_by else {},
        "measures": measures_of(a, made_by),
        "reasons": made_by.reasons if made_by and made_by.reasons else a.card.get("reasons", []),
    }


def measures_of(a: ledger.Adapter, made_by: ledger.Round | None) -> dict[str, Any]:
    """What its round measured: from the ledger, else from the card."""
    found = made_by.measures if made_by and made_by.measures else a.card.get("measures")
    return dict(found) if isinstance(found, Mapping) else {}


def round_of(r: ledger.Round, progress: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One round, with the progress of the one that runs."""
    ended = r.ended_at if r.ended_at is not None else None
    return {
        "round": r.id,
        "parent": name_of(r.parent),
        "state": r.state,
        "started_at": r.started_at,
        "ended_at": ended,
        "seconds": None if ended is None else round(ended - r.started_at, 1),
        "examples": r.counts,
        "measures": r.measures,
        "reasons": r.reasons,
        "error": r.error,
        "progress": dict(progress) if progress and progress.get("round") == r.id else None,
    }


def find_round(db: Db, round_id: int) -> ledger.Round:
    """One round. Raises NotFound."""
    found = ledger.rounds_of(db, [round_id]).get(round_id)
    if found is None:
        raise NotFound(f"there is no round {round_id}", "see: acclimate history")
    return found


def adapter_made_by(db: Db, round_id: int) -> str | None:
    """The version that an accepted round gave."""
    version = ledger.made_by(db, round_id)
    return None if version is None else name_of(version)


def show(db: Db, name: str) -> dict[str, Any]:
    """An adapter with its card, its lineage, and what it learned by source."""
    version = _adapter(name)
    a = ledger.adapter(db, version)
    line = ledger.line(db, version)
    taught = [example_id for _, example_id in carried.taught(db.read(), [version])]
    documents = {buffer.get(db, example_id).document_id for example_id in taught} - {None}
    return {
        **adapter_of(a, _round_of(db, a), ledger.live(db), ledger.taken_back(db).get(version)),
        "names": _called(db).get(version, []),
        "lineage": [*(name_of(v) for v in line), BASE],
        "card": a.card,
        "taught": _by_source(db, taught),
        "inherited": carried.how_many(db.read(), line[1:]),
        "redacted": sources.redacted(db, (n for n in documents if n is not None)),
    }


def diff(db: Db, left: str, right: str) -> dict[str, Any]:
    """What the right one has learned that the left has not, and what it cost. "base" is allowed."""
    (a, measures_a, settings_a), (b, measures_b, settings_b) = (
        _side(db, name) for name in (left, right)
    )
    versions = version_of(left), version_of(right)
    conn = db.read()
    lost, gained = (
        carried.beyond(conn, own, other)
        for own, other in zip(carried.apart(conn, *versions), versions[::-1], strict=True)
    )
    return {
        "a": a,
        "b": b,
        "gained": _by_source(db, gained),
        "lost": _by_source(db, lost),
        "shared": carried.how_many(conn, carried.line(conn, versions[1])) - len(gained),
        "measures": _beside(measures_a, measures_b, measures_a.keys() | measures_b.keys()),
        "hyperparameters": {
            key: pair
            for key, pair in _beside(
                settings_a, settings_b, settings_a.keys() | settings_b.keys()
            ).items()
            if pair["a"] != pair["b"]
        },
    }


def preview(content: Mapping[str, Any]) -> str:
    """The first characters of what an example asks; empty once it was forgotten."""
    messages = content.get("messages") or []
    asked = [m["content"] for m in messages if m["role"] == "user"]
    text = " ".join((asked[-1] if asked else "").split())
    return text if len(text) <= PREVIEW_CHARS else text[: PREVIEW_CHARS - 1] + "…"


def _side(db: Db, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    version = version_of(name)
    if version is None:
        return {"version": BASE, "parent": None, "lineage": [BASE]}, {}, {}
    a = ledger.adapter(db, version)
    about = {
        "version": name,
        "parent": name_of(a.parent),
        "lineage": [*(name_of(v) for v in ledger.line(db, version)), BASE],
        "created_at": a.created_at,
    }
    settings = a.card.get("hyperparameters") or a.card.get("training") or {}
    return about, measures_of(a, _round_of(db, a)), dict(settings)


def _adapter(name: str) -> int:
    version = version_of(name)
    if version is None:
        raise NotFound("base is the model itself and has no card", "see: acclimate history")
    return version


def _round_of(db: Db, a: ledger.Adapter) -> ledger.Round | None:
    return None if a.round_id is None else ledger.rounds_of(db, [a.round_id]).get(a.round_id)


def _called(db: Db) -> dict[int, list[str]]:
    """Versions that have names, with them."""
    found: dict[int, list[str]] = {}
    for name, version in names.names(db).items():
        found.setdefault(version, []).append(name)
    return found


def _beside(
    left: Mapping[str, Any], right: Mapping[str, Any], keys: Iterable[str]
) -> dict[str, dict[str, Any]]:
    return {key: {"a": left.get(key), "b": right.get(key)} for key in sorted(keys)}


def _by_source(db: Db, example_ids: Iterable[int]) -> list[dict[str, Any]]:
    """Examples under the source that each came from, with the first words of each."""
    groups: dict[int | None, list[dict[str, Any]]] = {}
    for example_id in example_ids:
        example = buffer.get(db, example_id)
        row = {
            "id": example.id,
            "state": example.state,
            "route": example.route,
            "route_reason": example.route_reason,
            "text": preview(example.content),
        }
        groups.setdefault(example.source_id, []).append(row)
    return [
        {"source": source_name(db, source_id), "count": len(rows), "examples": rows}
        for source_id, rows in groups.items()
    ]


def source_name(db: Db, source_id: int | None) -> str:
    """A source's folder; "added by hand" for what was given to `acclimate add`."""
    if source_id is None:
        return "unknown"
    try:
        source = sources.get_source(db, source_id)
    except AcclimateError:
        return "unknown"
    return "added by hand" if source.kind == "manual" else source.path.as_posix()
