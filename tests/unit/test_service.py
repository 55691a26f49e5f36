"""The service files: what systemd and plistlib say of them, and who is asked to run them."""

import os
import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from acclimate.daemon import service
from acclimate.daemon.service import ServiceError, render_launchd, render_systemd
from acclimate.store.files import Home

NASTY = [
    "plain",
    "with space",
    "it's",
    'say "so"',
    "100%",
    "%h",
    "$HOME",
    "${HOME}",
    "back\\slash",
    "a#b;c",
    "ünïcode",
    "@HOME@",
    "<&>",
]
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture(autouse=True)
def tmp_is_as_good_as_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_HIDDEN_BY_PRIVATE_TMP", ())


@pytest.fixture
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_launchd", lambda: False)


@pytest.fixture
def on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_launchd", lambda: True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Home.create(tmp_path / "home")


def analyze(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments, "--no-pager", str(tmp_path / "acclimate.service")],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )


def write_program(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "acclimate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@needs_systemd
@pytest.mark.parametrize("name", NASTY)
def test_systemd_accepts_the_unit_wherever_the_folders_are(
    tmp_path: Path, name: str, on_linux: None
) -> None:
    program = write_program(tmp_path / name)
    unit = render_systemd(tmp_path / name / "home", [str(program), "--home", name, "run"])
    (tmp_path / "acclimate.service").write_text(unit)
    verified = analyze(tmp_path, "verify", "--user", "--man=no")
    assert (verified.returncode, verified.stderr) == (0, "")


@needs_systemd
def test_exposure_is_at_most_3(tmp_path: Path, on_linux: None) -> None:
    program = write_program(tmp_path / "bin")
    (tmp_path / "acclimate.service").write_text(render_systemd(tmp_path, [str(program), "run"]))
    rated = analyze(tmp_path, "security", "--user", "--offline=yes")
    score = re.search(r"Overall exposure level for acclimate\.service: ([\d.]+)", rated.stdout)
    assert score, rated.stdout + rated.stderr
    assert float(score[1]) <= 3.0


def test_the_unit_says_what_the_design_asks_for(on_linux: None) -> None:
    unit = render_systemd(Path("/home/ann/my home"), ["/opt/acclimate", "--home", "x", "run"])
    for line in (
        "Type=notify",
        "Restart=on-failure",
        "CPUWeight=idle",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
        "ProtectHome=read-only",
        "PrivateUsers=yes",
        'ReadWritePaths="-/home/ann/my home"',
        'ExecStart=:"/opt/acclimate" "--home" "x" "run"',
    ):
        assert line in unit.splitlines()
    assert not re.search(r"^(MemoryDenyWriteExecute|PrivateDevices)", unit, re.MULTILINE)
    assert "@" not in re.sub(r"@(system-service|privileged)|^#.*$", "", unit, flags=re.MULTILINE)


# The escapes as systemd itself read them back: `systemctl show` under a real user manager.
@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("a b", '"a b"'),
        ("100%", '"100%%"'),
        ('say "so"', r'"say \"so\""'),
        ("back\\slash", r'"back\\slash"'),
        ("it's ${HOME}", '"it\'s ${HOME}"'),
    ],
)
def test_words_are_quoted(word: str, written: str) -> None:
    assert service.systemd_word(word) == written


@pytest.mark.parametrize("name", NASTY)
def test_the_plist_reads_back_as_meant(tmp_path: Path, name: str, on_macos: None) -> None:
    home = tmp_path / name
    job = plistlib.loads(render_launchd(home, ["/opt/acclimate", "--home", name, "run"]).encode())
    assert job["ProgramArguments"] == ["/opt/acclimate", "--home", name, "run"]
    assert job["StandardErrorPath"] == f"{home}/log/launchd.log"
    assert job["Umask"] == 0o077
    assert job["ProcessType"] == "Background"
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert job["LowPriorityIO"] is True


@pytest.mark.parametrize(
    ("home", "command"),
    [
        (Path("/home/a\nb"), ["/opt/acclimate"]),
        (Path("/home/ann"), ["/opt/acc\x07limate"]),
        (Path("/home/ann"), ["acclimate"]),
        (Path("/home/ann"), []),
    ],
)
def test_what_a_service_file_cannot_hold_is_refused(home: Path, command: list[str]) -> None:
    for render in (render_systemd, render_launchd):
        with pytest.raises(ServiceError):
            render(home, command)


def test_a_home_that_private_tmp_would_hide_is_refused(
    monkeypatch: pytest.MonkeyPatch, on_linux: None
) -> None:
    monkeypatch.setattr(service, "_HIDDEN_BY_PRIVATE_TMP", (Path("/tmp"),))  # noqa: S108
    with pytest.raises(ServiceError, match="empty ones of its own"):
        render_systemd(Path("/tmp/home"), ["/opt/acclimate"])  # noqa: S108


FAKE = """#!{python}
import os, sys
with open({log!r}, "a") as log:
    print(os.path.basename(sys.argv[0]), *sys.argv[1:], file=log)
if os.path.exists({broken!r}):
    sys.exit("Failed to connect to bus: No medium found")
if "ActiveState" in sys.argv:
    print("ActiveState=active\\nMainPID=4242")
if sys.argv[1] == "print":
    print("gui/501/acclimate.daemon = {{\\n\\tstate = running\\n\\tpid = 4242\\n\\tsub = {{\\n"
          "\\t\\tstate = active\\n\\t}}\\n}}")
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for systemctl, loginctl and launchctl that write down how they were called."""
    log = tmp_path / "calls"
    log.touch()
    for name in ("systemctl", "loginctl", "launchctl"):
        fake = tmp_path / "fake-bin" / name
        fake.parent.mkdir(exist_ok=True)
        broken = str(tmp_path / "broken")
        fake.write_text(FAKE.format(python=sys.executable, log=str(log), broken=broken))
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'fake-bin'}{os.pathsep}{os.environ['PATH']}")
    return log


def test_installs_starts_reports_and_removes_a_user_unit(
    home: Home, manager: Path, on_linux: None
) -> None:
    program = write_program(home.root.parent / "bin")
    done = service.install(home, [str(program)])
    assert done.path == home.root.parent / "config" / "systemd" / "user" / "acclimate.service"
    assert f'"{program}" "--home" "{home.root}" "run"' in done.path.read_text()
    assert home.token.exists()
    assert any("enable-linger" in hint for hint in done.hints)
    calls = manager.read_text().splitlines()
    assert "systemctl --user daemon-reload" in calls
    assert calls.index("systemctl --user enable acclimate.service") < calls.index(
        "systemctl --user restart acclimate.service"
    )
    now = service.status()
    assert (now.installed, now.running, now.state, now.pid) == (True, True, "active", 4242)
    service.uninstall()
    assert not done.path.exists()
    assert home.attached()
    assert "systemctl --user disable --now acclimate.service" in manager.read_text().splitlines()
    service.uninstall()


def test_without_start_nothing_is_enabled(home: Home, manager: Path, on_linux: None) -> None:
    program = write_program(home.root.parent / "bin")
    assert service.install(home, [str(program)], start=False).path.exists()
    assert "enable" not in manager.read_text()


def test_installs_reports_and_removes_a_launch_agent(
    home: Home, manager: Path, on_macos: None
) -> None:
    done = service.install(home, ["/opt/acclimate"])
    assert done.path.parent == home.root.parent / "Library" / "LaunchAgents"
    assert plistlib.loads(done.path.read_bytes())["ProgramArguments"][1:3] == [
        "--home",
        str(home.root),
    ]
    domain = f"gui/{os.getuid()}"
    assert manager.read_text().splitlines() == [
        f"launchctl bootout {domain}/acclimate.daemon",
        f"launchctl bootstrap {domain} {done.path}",
    ]
    now = service.status()
    assert (now.running, now.state, now.pid) == (True, "running", 4242)
    service.uninstall()
    assert not done.path.exists()


def test_a_dry_run_touches_nothing(home: Home, manager: Path, on_linux: None) -> None:
    done = service.install(home, ["/opt/acclimate"], dry_run=True)
    assert "ExecStart=" in done.text
    assert ["systemctl", "--user", "daemon-reload"] in done.commands
    assert not done.path.exists()
    assert not home.token.exists()
    assert manager.read_text() == ""


def test_no_user_manager_is_a_clear_error(home: Home, manager: Path, on_linux: None) -> None:
    (manager.parent / "broken").touch()
    with pytest.raises(ServiceError, match="No medium found") as refused:
        service.install(home, ["/opt/acclimate"])
    assert "loginctl enable-linger" in refused.value.hint
    assert not service.service_path().exists()


def test_no_systemd_at_all(home: Home, monkeypatch: pytest.MonkeyPatch, on_linux: None) -> None:
    monkeypatch.setenv("PATH", str(home.root))
    with pytest.raises(ServiceError, match="no systemd"):
        service.status()
