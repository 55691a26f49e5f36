"""The quick form of benchmarks/serving.py on the real daemon; times are not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serving.py"
ONLY = "warm,swaps"


@pytest.mark.slow
def test_no_reply_is_lost_or_mixed_under_swaps(real_models: Path, tmp_path: Path) -> None:
    """Without the peer: its columns stay empty, and it says so."""
    out = tmp_path / "serving.json"
    command = [sys.executable, SCRIPT, "--quick", "--only", ONLY, "--models", real_models]
    command += ["--peer", tmp_path / "none", "--out", out]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "no peer" in done.stdout
    report = json.loads(out.read_text())
    assert report["errors"] == {} and report["versions"]["peer"] is None
    rows = {row["name"].rpartition(": ")[2]: row for row in report["figures"]}
    assert rows["first token, warm prefix, median"]["met"] is None
    assert (rows["failed"]["value"], rows["mixed"]["value"]) == (0, 0)
    raw = rows["failed"]["raw"]
    # It must have had something to lose, and would have told one adapter from the other.
    assert raw["streams_in_flight_at_a_swap"] > 0 and min(raw["by_adapter"].values()) > 0
    assert raw["tokens_compared"] == raw["streams"] * report["settings"]["swap_tokens"]
    assert raw["as_the_other_would_say"] == []
