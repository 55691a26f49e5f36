"""Every route of a real daemon, as its own description says, with hostile and with sound values."""

import subprocess
import sys
from pathlib import Path

from real_daemon import RealDaemon, make_home

# What follows from rules between fields is not said in the description, so that sound values may be
# refused; and what is passed over in silence is not refused.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


def test_no_route_fails_whatever_it_is_sent(real_models: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", real_models)
    with RealDaemon(home.root) as daemon:
        assert daemon.ready()
        daemon.add("Bo", "Ada")
        daemon.learn()  # so that there is an adapter
        daemon.add("Cy", "Di")
        described = daemon.call("GET", "/openapi.json")
        assert len(described["paths"]) > 30
        token = (home.root / "token").read_text().strip()
        command = [Path(sys.executable).with_name("schemathesis"), "run", "--seed", 1]
        command += ["--checks", CHECKS, "--max-examples", 12, "--phases", "coverage,fuzzing"]
        command += ["--suppress-health-check", "all", "--request-timeout", 300, "--no-color"]
        url = daemon.client.base_url.copy_with(path="/openapi.json")
        command += ["-H", f"Authorization: Bearer {token}", url]
        done = subprocess.run(
            [*map(str, command)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert daemon.call("GET", "/health")["status"] == "ok"
        log = (home.log / "daemon.log").read_text()
        assert not [line for line in log.splitlines() if "request_failed" in line]
