"""A few kills of real processes; `python benchmarks/kills.py` runs all sixty."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"
KILLS = 7


def test_nothing_is_lost_or_doubled_by_kills(real_models: Path, tmp_path: Path) -> None:
    """Every mode, and the worker as well."""
    out = tmp_path / "kills.json"
    command = [sys.executable, SCRIPT, "--kills", KILLS, "--models", real_models, "--out", out]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report = json.loads(out.read_text())
    assert (report["kills"], report["violations"]) == (KILLS, 0)
    # It must have had something to lose.
    assert report["in_the_end"]["adapters"] >= 2
    assert report["in_the_end"]["examples"] > 20
    assert sum(kill["reached"] for kill in report["each"]) >= KILLS - 2
