"""Looks over machine, home and models, and says what is wrong and what to do about it.

Mends nothing, and may run beside a daemon; what could crash runs in a child process.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil

from acclimate.daemon import config as settings
from acclimate.daemon import models, tuning
from acclimate.daemon.attach import mount_of
from acclimate.daemon.config import Config
from acclimate.daemon.lock import HomeLock, Locked
from acclimate.daemon.token import token_file
from acclimate.daemon.tuning import Tuning
from acclimate.store.errors import AcclimateError
from acclimate.store.files import Home, sha256_file, version_name
from acclimate.store.ledger import ADAPTER_FILE

MIN_PYTHON = (3, 11)
LOW_DISK_BYTES, MIN_DISK_BYTES = 2 * 10**9, 200 * 10**6
LOW_MEMORY_BYTES = 1_500 * 10**6  # what a round on the default model takes, and some
_RECOVER = "stop the daemon; restore a copy of the file, or use sqlite3's .recover"
_AGAIN = "build it here: pip install --force-reinstall --no-cache-dir llama-cpp-python"
_ENGINE_SECONDS = 60
# Prints what the built llama.cpp uses of this processor; on a lesser one it dies at once.
_ENGINE = """
import json
from acclimate.adapters.native import llama_cpp
from acclimate.daemon.tuning import default_threads
info = llama_cpp.llama_print_system_info().decode()
pairs = [feature.rpartition(":")[2].partition("=") for feature in info.split("|")]
used = [name.strip() for name, _, value in pairs if value.strip() == "1"]
print(json.dumps({"used": used, "threads": default_threads()}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    level: Literal["ok", "warning", "error"]
    message: str
    hint: str = ""

    @property
    def ok(self) -> bool:
        return self.level != "error"


def examine(home: Home) -> list[Finding]:
    """Look at everything. Takes a few seconds: model files are read whole. Never raises."""
    config, finding = _config(home)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", _python),
        ("engine", lambda: _engine(home, config)),
        ("learning", _learning),
        ("memory", _memory),
        ("home", lambda: _home(home)),
    ]
    of_home: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("disk", lambda: _disk(home)),
        ("token", lambda: _token(home)),
        ("models", lambda: _models(home, config)),
        ("database", lambda: _database(home)),
        ("adapters", lambda: _adapters(home)),
        ("daemon", lambda: _daemon(home, config)),
    ]
    findings = [finding]
    for name, check in checks + (of_home if home.attached() else []):
        try:
            findings += check()
        except AcclimateError as e:
            findings.append(Finding(name, "error", e.message, e.hint))
        except sqlite3.Error as e:
            findings.append(Finding(name, "error", f"{home.db}: {e}", _RECOVER))
        except (OSError, psutil.Error) as e:
            message = f"cannot be looked at: {e}"
            findings.append(Finding(name, "error", message, "check the drive and the modes"))
    return findings


def _config(home: Home) -> tuple[Config, Finding]:
    try:
        config = settings.load(home)
    except AcclimateError as e:
        return Config(), Finding("config", "error", e.message, e.hint)
    where = str(home.config) if home.config.exists() else "no file: the defaults"
    return config, Finding("config", "ok", where)


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    if sys.version_info < MIN_PYTHON:
        yield Finding("python", "error", version, "install Python 3.11 or newer")
    else:
        yield Finding("python", "ok", f"{version} at {sys.executable}")


def _engine(home: Home, config: Config) -> Iterator[Finding]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _ENGINE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_ENGINE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        yield Finding("engine", "error", f"llama.cpp does not start in {_ENGINE_SECONDS} s", _AGAIN)
        return
    if done.returncode == -signal.SIGILL:
        message = "llama.cpp was built for another processor"
        yield Finding("engine", "error", message, _AGAIN)
    elif done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        message = f"llama.cpp does not start: {reason}"
        yield Finding("engine", "error", message, _AGAIN)
    else:
        said = json.loads(done.stdout)
        found = _tuning(home, config)
        threads = config.engine.threads or (found.threads if found else said["threads"])
        yield Finding("engine", "ok", f"{threads} threads; {', '.join(said['used'])}")
        yield Finding("engine speed", "ok", _speed(found))
        cores = os.cpu_count() or 1
        if threads > cores:
            hint = "set [engine] threads = 0 in config.toml"
            message = f"{threads} threads on {cores} processors"
            yield Finding("threads", "warning", message, hint)


def _tuning(home: Home, config: Config) -> Tuning | None:
    try:
        sha256 = models.base_sha256(home, models.base_path(home, config))
    except AcclimateError:
        return None  # another finding says so
    return tuning.read(tuning.file_for(home.cache, sha256))


def _speed(found: Tuning | None) -> str:
    if found is None:
        return "not measured yet: the daemon does it once, in its first quiet seconds"
    flash = {None: "where llama.cpp chooses it", True: "on", False: "off"}[found.flash_attention]
    return (
        f"{found.prompt_speed:.0f} tokens of a prompt a second, {found.reply_speed:.0f} of a reply;"
        f" {found.threads} threads, batches of {found.batch_tokens}, flash attention {flash}"
    )


def _learning() -> Iterator[Finding]:
    missing = [n for n in ("torch", "transformers", "peft") if importlib.util.find_spec(n) is None]
    if missing:
        message = f"cannot learn without {', '.join(missing)}"
        yield Finding("learning", "error", message, f"pip install {' '.join(missing)}")
    else:
        yield Finding("learning", "ok", "torch, transformers and peft are installed")


def _memory() -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    message = f"{_gigabytes(free)} available"
    if free < LOW_MEMORY_BYTES:
        yield Finding("memory", "warning", message, "a round may not fit: end other programs")
    else:
        yield Finding("memory", "ok", message)


def _home(home: Home) -> Iterator[Finding]:
    if not home.attached():
        message = f"{home.root} is not there any more"
        yield Finding("home", "error", message, "plug the drive in again")
        return
    mount = mount_of(home.root)
    kind = f" on {mount.kind}" if mount else ""
    open_to = stat.S_IMODE(home.root.stat().st_mode) & 0o077
    if not os.access(home.root, os.W_OK):
        yield Finding("home", "error", f"{home.root}{kind} cannot be written", "see its modes")
    elif open_to and _keeps_modes(home):
        message = f"others of this machine may look into {home.root}"
        yield Finding("home", "warning", message, f"chmod 700 {home.root}")
    elif open_to:
        message = f"{home.root}{kind}: this file system keeps no file private"
        yield Finding("home", "warning", message, "encrypt the drive")
    else:
        yield Finding("home", "ok", f"{home.root}{kind}")


def _keeps_modes(home: Home) -> bool:
    """Whether this file system has modes of its own, not those that it was mounted with."""
    mount = mount_of(home.root)
    return mount is None or mount.kind not in ("exfat", "vfat", "msdos", "fuseblk", "ntfs3")


def _disk(home: Home) -> Iterator[Finding]:
    free = shutil.disk_usage(home.root).free
    message = f"{_gigabytes(free)} free"
    if free < MIN_DISK_BYTES:
        yield Finding("disk", "error", message, "make room: nothing more can be kept")
    elif free < LOW_DISK_BYTES:
        yield Finding("disk", "warning", message, "make room: a round needs some")
    else:
        yield Finding("disk", "ok", message)


def _token(home: Home) -> Iterator[Finding]:
    path = token_file(home)
    if path is None:
        yield Finding("token", "ok", "none yet: the daemon makes one")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding("token", "error", f"{path} has mode {mode:04o}", f"delete it: rm {path}")
    else:
        yield Finding("token", "ok", f"{path}, mode {mode:04o}")


def _models(home: Home, config: Config) -> Iterator[Finding]:
    for name in (config.models.base, config.models.embedder):
        path = home.models / f"{name}.gguf"
        try:
            bound = models.base_sha256(home, path)
        except AcclimateError as e:
            yield Finding(f"model {name}", "error", e.message, e.hint)
            continue
        # Once more in full: a failing drive changes neither size nor time.
        if sha256_file(path) == bound:
            yield Finding(f"model {name}", "ok", f"SHA-256 {bound[:12]}… as pulled")
        else:
            hint = f"delete it and {path.stem}.json, then: acclimate models pull"
            yield Finding(f"model {name}", "error", f"{path} is damaged", hint)


def _database(home: Home) -> Iterator[Finding]:
    if not home.db.exists():
        yield Finding("database", "ok", "none yet")
        return
    with _open(home) as conn:
        problems = [row[0] for row in conn.execute("PRAGMA integrity_check(5)")]
        problems = [] if problems == ["ok"] else problems
        loose = conn.execute("PRAGMA foreign_key_check").fetchmany(5)
        problems += [f"a row of {row[0]} refers to nothing" for row in loose]
        journal = conn.execute("PRAGMA journal_mode").fetchone()[0]
    if problems:
        yield Finding("database", "error", "; ".join(problems), _RECOVER)
    else:
        about = f"sound; journal {journal}, SQLite {sqlite3.sqlite_version}"
        yield Finding("database", "ok", about)


def _adapters(home: Home) -> Iterator[Finding]:
    if not home.db.exists():
        return
    with _open(home) as conn:
        rows = conn.execute(
            "SELECT version, sha256 FROM adapters WHERE state = 'ok' ORDER BY version"
        ).fetchall()
    bad = []
    for version, sha256 in rows:
        file = home.adapter_dir(version) / ADAPTER_FILE
        if not file.is_file() or sha256_file(file) != sha256:
            bad.append(version_name(version))
    if bad:
        # The daemon reads the live one through when it starts, others when they are asked for.
        hint = (
            "a damaged one is never loaded, and live gives way to its parent at the next start;"
            " restore them, or go on without"
        )
        yield Finding("adapters", "error", f"missing or damaged: {', '.join(bad)}", hint)
    else:
        yield Finding("adapters", "ok", f"{len(rows)}, all as published")


@contextlib.contextmanager
def _open(home: Home) -> Iterator[sqlite3.Connection]:
    """The database, to be read only."""
    with contextlib.closing(
        sqlite3.connect(f"{home.db.as_uri()}?mode=ro", uri=True, timeout=5)
    ) as conn:
        yield conn


def _daemon(home: Home, config: Config) -> Iterator[Finding]:
    port = config.server.port
    lock = HomeLock(home)
    try:
        lock.acquire()
    except Locked as e:
        yield Finding("daemon", "ok", e.message)
        return
    lock.release()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if taken:
        message = f"does not run, and another program uses port {port}"
        yield Finding("daemon", "warning", message, "set another [server] port in config.toml")
    else:
        yield Finding("daemon", "ok", f"does not run; port {port} is free")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
