"""How data looks: tables and lines from what the routes give."""

import io
from typing import Any

import pytest
from rich.console import Console

from acclimate.daemon import render, views, views_learning


def drawn(renderable: Any) -> str:
    out = Console(file=io.StringIO(), width=160, highlight=False)
    out.print(renderable)
    text: str = out.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (180, "3 min"), (7200, "2 h"), (200_000, "2 d"), (-50, "0 s")],
)
def test_age(seconds: float, text: str) -> None:
    assert views.age(1000.0, now=1000.0 + seconds) == text


MEASURES = {
    "wordings": {"n": 16, "before": 1.92, "after": 0.31},
    "general_base": {"n": 40, "before": 0.5, "after": 0.512},
}
ADAPTER = {
    "version": "v0001",
    "parent": "base",
    "round": 1,
    "live": True,
    "state": "ok",
    "created_at": 1.0,
    "examples": {"new": 16, "replay": 4},
    "measures": MEASURES,
    "reasons": [],
    "sha256": "ab" * 32,
}


def test_history_shows_adapters_and_what_was_rejected() -> None:
    rejected = {
        "round": 2,
        "state": "rejected",
        "parent": "v0001",
        "started_at": 1.0,
        "ended_at": 2.0,
        "examples": {"new": 3},
        "measures": {},
        "reasons": ["general, against base: NLL +0.3"],
        "error": None,
    }
    accepted = {**rejected, "round": 1, "state": "accepted", "reasons": ["never shown"]}
    text = drawn(
        views_learning.history(
            {
                "live": "v0001",
                "pinned": True,
                "adapters": [ADAPTER],
                "rounds": [rejected, accepted],
                "swaps": [],
            }
        )
    )
    newest, oldest = text.splitlines()[1:3]
    assert "round 2" in newest and "rejected: general, against base: NLL +0.3" in newest
    assert "v0001" in oldest and "1.92 → 0.31" in oldest and "+0.012" in oldest
    assert "16+4" in oldest and "◆" in oldest
    assert "never shown" not in text
    assert "live: v0001 (pinned)" in text


def test_an_adapter_that_was_taken_back_says_why_unless_it_is_live_again() -> None:
    said = "rolled back to base: 9 of 12 rated replies were bad, 2 of 15 before"
    data = {"live": "base", "pinned": False, "rounds": [], "swaps": []}
    lost = {**ADAPTER, "live": False, "taken_back": said}
    assert said in drawn(views_learning.history({**data, "adapters": [lost]}))
    assert f"v0001 ({said})" in drawn(views_learning.adapter(lost))
    again = {**lost, "live": True}
    assert "accepted" in drawn(views_learning.history({**data, "adapters": [again]}))
    gone = {**lost, "state": "retired", "retired": "it learned what was forgotten"}
    assert "retired: it learned" in drawn(views_learning.adapter(gone))


def test_empty_history_says_what_to_do() -> None:
    empty = {"live": "base", "pinned": False, "adapters": [], "rounds": [], "swaps": []}
    assert "acclimate learn" in drawn(views_learning.history(empty))


def test_adapter_card() -> None:
    card = {
        "base_sha256": "cd" * 32,
        "train_seconds": 80.2,
        "scope_share": 0.27,
        "steps": 120,
        "layers": [2, 3],
        "layers_chosen": "measured",
        "layer_scores": [0.2, 0.1, 0.8, 0.5],
        "checks": [{"name": "finite", "passed": True, "reason": "every number is finite"}],
    }
    taught = [
        {
            "source": "/home/me/chats",
            "count": 12,
            "examples": [{"id": n, "state": "learned", "text": f"question {n}"} for n in range(12)],
        }
    ]
    data = {**ADAPTER, "lineage": ["v0001", "base"], "card": card, "taught": taught, "inherited": 0}
    text = drawn(views_learning.adapter(data))
    for word in ("v0001 ← base", "80 s, 120 steps", "✓", "question 7", "and 4 more"):
        assert word in text
    assert "answers 27% of general text, base the rest" in text
    assert "2 to 3 (measured)" in text and "▂▁█▅ 0.10 to 0.80" in text
    flat = {**card, "layer_scores": [0.5, 0.5]}
    assert "▁▁ 0.50 to 0.50" in drawn(views_learning.adapter({**data, "card": flat}))
    set_by_hand = {**card, "layers_chosen": "set by hand", "layer_scores": []}
    text = drawn(views_learning.adapter({**data, "card": set_by_hand}))
    assert "2 to 3 (set by hand)" in text and "layer scores" not in text
    assert "question 8" not in text


def test_diff() -> None:
    rows = [{"id": 3, "state": "learned", "text": "who?"}]
    data = {
        "a": {"version": "base"},
        "b": {"version": "v0001"},
        "gained": [{"source": "chats", "count": 1, "examples": rows}],
        "lost": [],
        "shared": 0,
        "measures": {"wordings": {"a": None, "b": MEASURES["wordings"]}},
        "hyperparameters": {"rank": {"a": None, "b": 8}},
    }
    text = drawn(views_learning.diff(data))
    for word in ("base → v0001", "only v0001 learned", "who?", "1.92 → 0.31", "rank"):
        assert word in text


def test_status_on_one_screen() -> None:
    data = {
        "daemon": {
            "running": True,
            "pid": 5,
            "port": 7077,
            "uptime_seconds": 7200,
            "memory_bytes": 2e8,
        },
        "home": {"path": "/h", "portable": True, "attached": True},
        "models": {"base": "smollm2", "embedder": "minilm"},
        "live": "v0001",
        "pinned": False,
        "notice": "v0002 rolled back to v0001: 9 of 12 rated replies were bad",
        "probation": {
            "adapter": "v0001",
            "against": "base",
            "ratings": {"verdict": "open", "said": "1 of 3 rated replies were bad"},
            "losses": {"verdict": "open", "said": "4 of at least 8 exchanges measured"},
        },
        "examples": {"pending": 3, "learned": 0},
        "routes": {"weights": 1, "retrieval": 2, "preference": 0, "dropped": 1},
        "held_back": {"its source has given its share": 5},
        "redacted": {"aws key": 1, "iban": 2},
        "study": {
            "asks": True,
            "passages": 2,
            "waiting": 3,
            "paused": "on battery",
            "asked": 7,
            "kept": 1,
            "dropped": {"not read back": 4, "not in the note": 2},
        },
        "sources": [
            {
                "id": 1,
                "path": "/n",
                "kind": "notes",
                "state": "missing",
                "documents": {"ok": 2, "refused": 1},
                "examples": 0,
            }
        ],
        "refused": [{"source": "/n", "path": "a.bin", "reason": "binary", "at": 1.0}],
        "quarantined": [{"source": "/c", "path": "l.jsonl", "line": 7, "reason": "no JSON"}],
        "index": {"size": 10, "pending": 2},
        "round": {"round": 4, "phase": "train", "step": 3, "steps": 9, "paused": True},
        "last_round": None,
        "next_round_at": None,
    }
    text = drawn(views_learning.status(data))
    for word in (
        "pid 5, port 7077, for 2 h, 200 MB",
        "/h (portable)",
        "v0001 on smollm2",
        "v0002 rolled back to v0001: 9 of 12 rated",
        "v0001 against base: 1 of 3 rated replies were bad; 4 of at least 8 exchanges measured",
        "3 pending",
        "2 for retrieval only, 1 dropped",
        "5: its source has given its share",
        "1 aws key, 2 ibans",
        "1 kept of 7 that the base wrote on 2 passages, 3 waiting (on battery)",
        "dropped: 2 not in the note, 4 not read back",
        "(missing)",
        "/n/a.bin",
        "/c/l.jsonl:7",
        "4 runs: train 3/9, paused",
        "2 waiting",
    ):
        assert word in text, word
    quiet = {"probation": None, "notice": ""}
    idle = {**data, **quiet, "daemon": {"running": False}, "round": None, "sources": []}
    shown = drawn(views_learning.status(idle))
    assert "acclimate run" in shown and "notice" not in shown and "probation" not in shown


def test_streamed_text_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Console(file=io.StringIO(), force_terminal=True)
    render.write(out, "a\x1b]0;title\x07b\n")
    assert out.file.getvalue() == "a]0;titleb\n"  # type: ignore[attr-defined]


def test_progress_without_a_terminal_is_a_line_a_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with render.RoundProgress(1) as progress:
        for step in range(3):
            progress.update({"phase": "train", "step": step, "steps": 3, "ce": 1.0, "seconds": 2.0})
        progress.update({"phase": "measure", "done": 1, "total": 2, "seconds": 9.0})
    with render.BytesProgress() as bytes_progress:
        bytes_progress.update("model", 1, 10)
        bytes_progress.update("model", 10, 10)
    assert capsys.readouterr().err.splitlines() == ["train (2 s)", "measure (9 s)", "model"]
