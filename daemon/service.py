"""Installs the daemon with the person's own service manager: systemd's user units or launchd.

Fills in the templates of acclimate.systemd; knows nothing of what the daemon does.
"""

import os
import plistlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from acclimate.daemon.token import load_or_create_token
from acclimate.store.errors import AcclimateError
from acclimate.store.files import Home, atomic_write

UNIT = "acclimate.service"
LABEL = "acclimate.daemon"
_HIDDEN_BY_PRIVATE_TMP = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - looked for, not used


class ServiceError(AcclimateError):
    """The service manager is missing, or did not do what was asked."""


@dataclass(frozen=True)
class Installed:
    """What `install` wrote and ran; with `dry_run` what it would have."""

    path: Path
    text: str
    commands: list[list[str]]
    hints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ServiceStatus:
    """`state` is the manager's own word, such as active or failed; "" when it knows no such job."""

    manager: str  # "systemd" or "launchd"
    path: Path
    installed: bool
    running: bool
    state: str
    pid: int | None


def install(
    home: Home, program: Sequence[str], *, start: bool = True, dry_run: bool = False
) -> Installed:
    """Write the service file and, with `start`, enable and start it (again, if it ran).

    `program` is the command without arguments of ours, its first word an absolute path:
    `--home … run` is added. Raises ServiceError: no service manager, a path it cannot express.
    """
    command = [*program, "--home", str(home.root), "run"]
    _check(home.root, command)
    path = service_path()
    if _launchd():
        text = render_launchd(home.root, command)
        domain = f"gui/{os.getuid()}"
        stop = [["launchctl", "bootout", f"{domain}/{LABEL}"]]
        commands = [["launchctl", "bootstrap", domain, str(path)]] if start else []
    else:
        text = render_systemd(home.root, command)
        stop = []
        commands = [["systemctl", "--user", "daemon-reload"]]
        if start:
            commands.append(["systemctl", "--user", "enable", UNIT])
            commands.append(["systemctl", "--user", "restart", UNIT])
    if dry_run:
        return Installed(path, text, stop + commands)
    _require_manager()
    # Made now, since the daemon may write to its home only: where that has no file modes the token
    # lies elsewhere.
    load_or_create_token(home)
    if not _launchd():
        _verify(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    home.log.mkdir(exist_ok=True)
    atomic_write(path, text.encode(), 0o644)
    for step in stop:
        _run(step)  # not loaded yet is no failure
    for step in commands:
        _must(step)
    return Installed(path, text, stop + commands, _hints(path))


def uninstall(*, dry_run: bool = False) -> Installed:
    """Stop the service and remove its file; nothing of the home. Nothing to remove is no error."""
    path = service_path()
    if _launchd():
        stop, after = [["launchctl", "bootout", f"gui/{os.getuid()}/{LABEL}"]], []
    else:
        stop = [["systemctl", "--user", "disable", "--now", UNIT]]
        after = [["systemctl", "--user", "daemon-reload"]]
    done = Installed(path, "", stop + after)
    if dry_run or not path.exists():
        return done
    # The file goes even where the manager does not answer: it must not start the daemon again.
    for step in stop:
        _run(step)
    path.unlink()
    for step in after:
        _run(step)
    return done


def status() -> ServiceStatus:
    """What the service manager says. Raises ServiceError when there is none to ask."""
    path = service_path()
    if _launchd():
        answer = _run(["launchctl", "print", f"gui/{os.getuid()}/{LABEL}"]).stdout
        pairs = [line.strip().partition(" = ") for line in answer.splitlines()]
        known = {key: value for key, _, value in reversed(pairs)}  # the first of a key counts
        state, pid = known.get("state", ""), known.get("pid", "")
        manager, running = "launchd", state == "running"
    else:
        _require_manager()
        answer = _must(["systemctl", "--user", "show", UNIT, "-p", "ActiveState", "-p", "MainPID"])
        known = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
        state, pid = known.get("ActiveState", ""), known.get("MainPID", "")
        manager, running = "systemd", state in ("active", "reloading")
    number = int(pid) if pid.isdecimal() and pid != "0" else None
    return ServiceStatus(manager, path, path.exists(), running, state, number)


def service_path() -> Path:
    """Where this platform looks for a person's own services."""
    if _launchd():
        return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    return user_config_path("systemd", appauthor=False) / "user" / UNIT


def render_systemd(home: Path, command: Sequence[str]) -> str:
    """The user unit. Raises ServiceError for a path that a unit cannot hold."""
    _check(home, command)
    if any(mark in command[0] for mark in "\"'\\"):
        # However quoted, systemd refuses these in the program's own path; arguments may have them.
        command = ["/bin/sh", "-c", 'exec "$@"', "sh", *command]
    # ":" in front turns off the expansion of $VARIABLES, for which no quoting would help the
    # program's own name.
    program = ":" + " ".join(systemd_word(word) for word in command)
    template = files("acclimate.systemd").joinpath("acclimate.service").read_text("utf-8")
    # "-": without its drive the daemon starts, says what is missing and ends.
    return _fill(template, {"@PROGRAM@": program, "@HOME@": systemd_word(f"-{home}")})


def render_launchd(home: Path, command: Sequence[str]) -> str:
    """The launch agent's property list. Raises ServiceError for a path with control characters."""
    _check(home, command)
    template = files("acclimate.systemd").joinpath("acclimate.plist").read_bytes()
    job: dict[str, Any] = plistlib.loads(template)
    job["ProgramArguments"] = list(command)
    for key in ("StandardOutPath", "StandardErrorPath"):
        job[key] = job[key].replace("@HOME@", str(home))
    return plistlib.dumps(job, sort_keys=False).decode()


def systemd_word(word: str) -> str:
    r"""One word of a setting: quoted, escaped, and % doubled (systemd.syntax(7), "Quoting")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _fill(template: str, values: dict[str, str]) -> str:
    lines = []
    for line in template.splitlines():
        key, equals, value = line.partition("=")
        # Whole values only, so that a path that contains "@HOME@" stays what it is.
        lines.append(key + equals + values.get(value, value))
    return "\n".join(lines) + "\n"


def _check(home: Path, command: Sequence[str]) -> None:
    for word in (str(home), *command):
        if not word.isprintable():
            raise ServiceError(f"the path {word!r} has control characters", "rename the folder")
    if not command or not Path(command[0]).is_absolute():
        raise ServiceError(f"the program must be an absolute path, not {list(command)[:1]}")
    if not _launchd() and any(
        Path(path).is_relative_to(hidden)
        for path in (home, command[0])
        for hidden in _HIDDEN_BY_PRIVATE_TMP
    ):
        raise ServiceError(
            "a service cannot use files under /tmp or /var/tmp: it gets empty ones of its own",
            "move the home or the program somewhere that lasts",
        )


def _verify(text: str) -> None:
    """Let systemd read the unit before it replaces one that may work."""
    if shutil.which("systemd-analyze") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder, UNIT)
        unit.write_text(text, encoding="utf-8")
        command = ["systemd-analyze", "verify", "--user", "--man=no", str(unit)]
        done = _run(command, XDG_RUNTIME_DIR=folder)  # it insists on one
    # Warnings do not count: an older systemd does not know every setting, and leaves it out.
    if done.returncode != 0:
        raise ServiceError("systemd does not accept the unit: " + done.stderr.strip()[-500:])


def _hints(path: Path) -> list[str]:
    if _launchd():
        return []
    user = str(os.getuid())
    linger = _run(["loginctl", "show-user", user, "--property=Linger", "--value"])
    if linger.stdout.strip() == "yes":
        return []
    return [f"{path.name} runs while you are logged in; for always: loginctl enable-linger"]


def _require_manager() -> None:
    if _launchd():
        return
    if shutil.which("systemctl") is None:
        raise ServiceError(
            "there is no systemd on this machine",
            "start the daemon another way with: acclimate run",
        )
    answer = _run(["systemctl", "--user", "show", "--property=Version"])
    if answer.returncode != 0:
        raise ServiceError(
            f"your systemd user manager does not answer: {answer.stderr.strip()[-300:]}",
            "log in as yourself (not by su or sudo), or: loginctl enable-linger, then log in again",
        )


def _launchd() -> bool:
    return sys.platform == "darwin"


def _must(command: Sequence[str]) -> str:
    done = _run(command)
    if done.returncode != 0:
        raise ServiceError(
            f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-500:]}",
            "see: "
            + (f"journalctl --user -u {UNIT}" if not _launchd() else "log/launchd.log in the home"),
        )
    return done.stdout


def _run(command: Sequence[str], **extra: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", **extra}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, env=environ, timeout=120, check=False
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "no answer within 120 s")
