"""The demo as it is, on the real default model: the loop closes and what it shows holds.

The demo's own table has the figures; the limits here leave room for another processor's rounding.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_demo_learns_keeps_and_swaps(real_models: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "examples" / "demo.py"),
            *("--home", str(tmp_path / "home")),
            *("--models", str(real_models)),
            *("--report", str(report)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(done.stdout)
    found = json.loads(report.read_text("utf-8"))

    def share(state: str, kind: str) -> float:
        right, total = found["scores"][state][kind]
        return float(right / total)

    assert share("base", "exact") <= 0.1 and share("base", "reworded") <= 0.1
    assert share("live", "exact") >= 0.85
    assert share("live", "reworded") >= 0.6
    assert share("live+retrieval", "reworded") >= 0.8
    kept, answered = found["general_kept"]
    assert kept >= 0.85 * answered
    assert found["general_nll_change"] <= 0.04
    assert found["swap"]["failed"] == 0 and found["swap"]["swaps"] == 6
    assert "general ΔNLL" in done.stdout
