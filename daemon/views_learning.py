"""How rounds, adapters and the daemon's state look on a terminal.

Pure functions from JSON-like data; knows neither routes nor terminals.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from acclimate.daemon.views import age, cell, counts, facts, table

Data = Mapping[str, Any]

_BARS = "▁▂▃▄▅▆▇█"
_LONGEST_LIST = 8  # of files refused, examples taught: the rest is a number


def pair(measure: Any) -> str:
    """ "1.92 → 0.31"; empty where nothing was measured."""
    if not isinstance(measure, Mapping) or measure.get("before") is None:
        return ""
    return f"{measure['before']:.2f} → {measure['after']:.2f}"


def gain(measures: Data) -> str:
    """NLL of unseen wordings of what was taught (else of unseen exchanges), before → after."""
    return pair(measures.get("wordings")) or pair(measures.get("unseen"))


def forgetting(measures: Data) -> str:
    """How much the NLL of general answers rose against the base (else the parent)."""
    found = measures.get("general_base") or measures.get("general_parent")
    if not isinstance(found, Mapping) or found.get("before") is None:
        return ""
    return f"{found['after'] - found['before']:+.3f}"


def history(data: Data) -> RenderableType:
    """Adapters and the rounds that gave none, newest first."""
    rows, last = [], 0
    for a in data["adapters"][::-1]:  # one that no round made stands above the one before it
        last = a["round"] or last
        rows.append((last, _adapter_row(a, bool(data.get("pinned")))))
    rows.reverse()
    rows += [(r["round"], _round_row(r)) for r in data["rounds"] if r["state"] != "accepted"]
    if not rows:
        return Text("no round yet; teach it something, then: acclimate learn --wait", style="dim")
    made = table(
        *("", "version", "age", "parent", "examples", "gain (NLL)", "forgetting", "verdict"),
        right=["examples", "forgetting"],
    )
    for _, row in sorted(rows, key=lambda item: item[0], reverse=True):
        made.add_row(*row)
    live = data.get("live") or "base"
    state = f"live: {live}" + (" (pinned)" if data.get("pinned") else "")
    return Group(made, Text(state, style="dim"))


def _adapter_row(a: Data, pinned: bool) -> tuple[str, ...]:
    mark = "" if not a.get("live") else "[green]◆[/]" if pinned else "[green]●[/]"
    return (
        mark,
        cell(" ".join([a["version"], *a.get("names", [])])),
        age(a.get("created_at")),
        cell(a.get("parent") or "base"),
        _taught(a),
        gain(a.get("measures") or {}),
        forgetting(a.get("measures") or {}),
        _verdict(a) if (state := _state(a)) == "ok" else f"[yellow]{cell(state)}[/]",
    )


def _verdict(a: Data) -> str:
    where = a.get("imported")
    return f"imported: {cell(where['file'])}" if where else "accepted"


def _state(a: Data) -> str:
    if a["state"] == "ok" and not a.get("live") and a.get("taken_back"):
        return str(a["taken_back"])
    return ": ".join(filter(None, (str(a["state"]), a.get("retired"))))


def _round_row(r: Data) -> tuple[str, ...]:
    measures = r.get("measures") or {}
    why = "; ".join(r.get("reasons") or []) or r.get("error") or ""
    style = "dim" if r["state"] == "running" else "red"
    return (
        "",
        f"round {r['round']}",
        age(r.get("ended_at") or r.get("started_at")),
        cell(r.get("parent") or "base"),
        _taught(r),
        gain(measures),
        forgetting(measures),
        f"[{style}]{cell(r['state'])}[/]" + (f": {cell(why)}" if why else ""),
    )


def _taught(row: Data) -> str:
    examples = row.get("examples") or {}
    new, replay = examples.get("new", 0), examples.get("replay", 0)
    return f"{new}+{replay}" if replay else f"{new}"


def verdict(data: Data) -> RenderableType:
    """How a round ended, and why."""
    measures = data.get("measures") or {}
    state = str(data["state"])
    name = data.get("adapter")
    head = Text(f"round {data['round']}: ")
    head.append(state, style="bold green" if state == "accepted" else "bold red")
    if name:
        head.append(f", it is {name}")
    lines: list[RenderableType] = [head]
    reasons = list(data.get("reasons") or []) or ([data["error"]] if data.get("error") else [])
    lines += [Text(f"  {reason}") for reason in reasons]
    known = [("gain (NLL)", gain(measures)), ("forgetting (NLL)", forgetting(measures))]
    if state == "accepted":
        lines.append(facts(known))
    else:
        lines.append(Text("the adapter that served before still serves", style="dim"))
    return Group(*lines)


def adapter(data: Data) -> RenderableType:
    """One adapter's card."""
    card = data.get("card") or {}
    state = _state(data) + (", live" if data.get("live") else "")
    head = facts(
        [
            ("adapter", f"{data['version']} ({state})"),
            ("names", " ".join(data.get("names") or [])),
            ("descends from", " ← ".join(map(str, data.get("lineage") or []))),
            ("age", age(data.get("created_at"))),
            ("round", data.get("round") or ""),
            ("imported", _imported(data.get("imported"), card)),
            ("examples", counts(data.get("examples") or {})),
            ("inherited", data.get("inherited") or ""),
            ("redacted", _redacted(data)),
            ("scope", _scope(card)),
            ("training", _seconds(card)),
            ("layers", _layers(card)),
            ("layer scores", _scores(card.get("layer_scores") or [])),
            ("base", str(card.get("base_sha256", ""))[:16]),
            ("sha256", str(data.get("sha256", ""))[:16]),
        ]
    )
    parts: list[RenderableType] = [head]
    if checks := card.get("checks"):
        parts += [Text("\ngate", style="bold"), _checks(checks)]
    if taught := data.get("taught"):
        parts += [Text("\nlearned", style="bold"), _examples(taught)]
    return Group(*parts)


def _imported(where: Data | None, card: Data) -> str:
    return f"{where['file']} ({where['format']}), rank {card.get('rank')}" if where else ""


def _scope(card: Data) -> str:
    share = card.get("scope_share")
    return "" if share is None else f"answers {share:.0%} of general text, base the rest"


def _seconds(card: Data) -> str:
    seconds = card.get("train_seconds")
    return f"{seconds:.0f} s, {card.get('steps', '?')} steps" if seconds is not None else ""


def _layers(card: Data) -> str:
    layers, how = card.get("layers"), card.get("layers_chosen")
    return f"{min(layers)} to {max(layers)}" + (f" ({how})" if how else "") if layers else ""


def _scores(scores: Sequence[float]) -> str:
    """One bar a layer, from the lowest score to the highest."""
    if not scores:
        return ""
    low, high = min(scores), max(scores)
    bars = (_BARS[round((x - low) / ((high - low) or 1) * (len(_BARS) - 1))] for x in scores)
    return f"{''.join(bars)} {low:.2f} to {high:.2f}"


def _checks(checks: Iterable[Data]) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        mark = "[green]✓[/]" if check.get("passed") else "[red]✗[/]"
        made.add_row(mark, cell(check["name"]), cell(check["reason"]))
    return made


def _examples(groups: Iterable[Data]) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False)
    for group in groups:
        made.add_row(cell(group["count"]), cell(group["source"]))
        for row in group["examples"][:_LONGEST_LIST]:
            made.add_row(f"[dim]#{row['id']}[/]", f"[dim]{cell(row['text'])}[/]")
        if (more := len(group["examples"]) - _LONGEST_LIST) > 0:
            made.add_row("", f"[dim]and {more} more[/]")
    return made


def diff(data: Data) -> RenderableType:
    """What the second adapter has that the first has not, and what it cost."""
    a, b = data["a"]["version"], data["b"]["version"]
    parts: list[RenderableType] = [Text(f"{a} → {b}", style="bold")]
    parts.append(Text(f"both learned {data.get('shared', 0)} examples", style="dim"))
    for key, title in (("gained", f"\nonly {b} learned"), ("lost", f"\nonly {a} learned")):
        if data.get(key):
            parts += [Text(title, style="bold"), _examples(data[key])]
    for key in ("measures", "hyperparameters"):
        rows = {
            name: [_value(both["a"]), _value(both["b"])]
            for name, both in (data.get(key) or {}).items()
            if name != "card" and both["a"] != both["b"]
        }
        if rows:
            made = table(key, cell(a), cell(b), right=[a, b])
            for name, values in rows.items():
                made.add_row(cell(name), *values)
            parts += [Text(""), made]
    return Group(*parts)


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return pair(value) or cell(value)


def status(data: Data) -> RenderableType:
    """One screen: who serves, what was read, what is learned and what went wrong."""
    examples = {name: n for name, n in (data.get("examples") or {}).items() if n}
    index = data.get("index") or {}
    waiting = f", {index['pending']} waiting for their vectors" if index.get("pending") else ""
    live = str(data.get("live") or "base") + (" (pinned)" if data.get("pinned") else "")
    models = data.get("models") or {}
    home = data.get("home") or {}
    head = facts(
        [
            ("daemon", _daemon(data.get("daemon") or {})),
            ("home", f"{home.get('path')}" + (" (portable)" if home.get("portable") else "")),
            ("live", f"{live} on {models.get('base', '?')}"),
            ("notice", Text(notice, style="yellow") if (notice := data.get("notice")) else ""),
            ("on probation", _probation(data.get("probation"))),
            ("round", _round(data)),
            ("next round", _next(data)),
            ("examples", counts(examples) or "none yet"),
            ("not taught", counts(_kept_out(data))),
            ("held back", "; ".join(f"{n}: {why}" for why, n in _held(data))),
            ("redacted", _redacted(data)),
            ("questions", _study(data.get("study") or {})),
            ("learn again", data.get("relearning") or ""),
            ("passages", f"{index.get('size', 0)} in the index{waiting}"),
        ]
    )
    parts: list[RenderableType] = [head]
    if rows := data.get("sources"):
        made = table("source", "kind", "files", "refused", "examples", right=["files", "examples"])
        for row in rows:
            documents = row.get("documents") or {}
            gone = " [yellow](missing)[/]" if row.get("state") == "missing" else ""
            made.add_row(
                f"{cell(row['path'])}{gone}",
                cell(row["kind"]),
                cell(documents.get("ok", 0)),
                cell(documents.get("refused") or ""),
                cell(row.get("examples", "")),
            )
        parts += [Text(""), made]
    troubles = [
        *((_path(row), row["reason"]) for row in data.get("refused") or []),
        *((f"{_path(row)}:{row['line']}", row["reason"]) for row in data.get("quarantined") or []),
    ]
    if troubles:
        made = table("not used", "why")
        for where, why in troubles[:_LONGEST_LIST]:
            made.add_row(cell(where), f"[yellow]{cell(why)}[/]")
        if (more := len(troubles) - _LONGEST_LIST) > 0:
            made.add_row(f"[dim]and {more} more: acclimate status --json[/]")
        parts += [Text(""), made]
    return Group(*parts)


def _kept_out(data: Data) -> dict[str, int]:
    routes = data.get("routes") or {}
    words = (("retrieval", "for retrieval only"), ("dropped", "dropped"))
    return {word: routes.get(route, 0) for route, word in words}


def _held(data: Data) -> list[tuple[str, int]]:
    return sorted((data.get("held_back") or {}).items())


def _redacted(data: Data) -> str:
    """How many secrets were taken out of what was read, by kind."""
    found = data.get("redacted") or {}
    return counts({kind if n == 1 else f"{kind}s": n for kind, n in found.items()})


def _study(study: Data) -> str:
    """What the base was asked about notes, empty where it never was and is not to be."""
    if not (study.get("asks") or study.get("passages")):
        return ""
    waiting = study.get("waiting", 0)
    paused = f" ({study['paused']})" if waiting and study.get("paused") else ""
    said = f"{study['kept']} kept of {study['asked']} that the base wrote"
    said += f" on {study['passages']} passages, {waiting} waiting{paused}"
    dropped = counts(dict(sorted(study["dropped"].items())))
    return f"{said}; dropped: {dropped}" if dropped else said


def _path(row: Data) -> str:
    return f"{row['source']}/{row['path']}"


def _daemon(daemon: Data) -> Text:
    if not daemon.get("running"):
        return Text("not running; start it with: acclimate run", style="yellow")
    said = [f"running, pid {daemon['pid']}", f"port {daemon.get('port', '?')}"]
    if (uptime := daemon.get("uptime_seconds")) is not None:
        said.append(f"for {age(0.0, now=uptime)}")
    if memory := daemon.get("memory_bytes"):
        said.append(f"{memory / 1e6:.0f} MB")
    return Text(", ".join(said), style="green")


def _probation(watched: Data | None) -> str:
    if watched is None:
        return ""
    said = "; ".join(watched[kind]["said"] for kind in ("ratings", "losses"))
    return f"{watched['adapter']} against {watched['against']}: {said}"


def _round(data: Data) -> str:
    if running := data.get("round"):
        done, total = running.get("step"), running.get("steps")
        if running["phase"] != "train":
            done, total = running.get("done"), running.get("total")
        steps = f" {done}/{total}" if total else ""
        paused = ", paused" if running.get("paused") else ""
        return f"{running['round']} runs: {running['phase']}{steps}{paused}"
    last = data.get("last_round")
    if not last:
        return "none yet"
    why = "; ".join(last.get("reasons") or []) or last.get("error") or ""
    said = f"{last['round']} {last['state']} {age(last.get('ended_at'))} ago"
    return f"{said}: {why}" if why and last["state"] != "accepted" else said


def _next(data: Data) -> str:
    if data.get("paused"):
        return f"paused: {data['paused']}"
    at = data.get("next_round_at")
    if not isinstance(at, int | float):
        return str(at or "")
    from datetime import datetime

    return datetime.fromtimestamp(at).strftime("%a %H:%M")
