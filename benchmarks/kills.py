"""kill -9 of daemon and worker, at random moments and at every failpoint, and what it left.

    python benchmarks/kills.py [--kills 60] [--seed 1] [--models DIR] [--out FILE] [--keep]

Real processes over a real home on a tiny random base. After each kill the home is looked at by
other means than its own code: sqlite3, hashes of files, replies over HTTP. Prints a table, writes
benchmarks/out/kills.json, and ends with 1 when anything acknowledged was lost or doubled, or
anything else than the last committed adapter is served.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from after_kill import NAME, Findings, Look, Promised  # noqa: E402
from real_daemon import RealDaemon, fact, make_home  # noqa: E402

# Publishing has the most places to die at.
MODES = ("ingest", "train", "publish", "swap", "publish")
# Where the failpoints of each mode are; at random moments it is killed as well.
POINTS = {
    "ingest": ("ingest.", "buffer.", "index."),
    "publish": ("round.", "publish", "swap.", "db.", "remove_tree.", "atomic_write."),
    "swap": ("swap.", "db."),
}
# How often a failpoint is passed at least, where that is not once in a round, four times else.
MOST_HITS = {
    ("publish", "db"): 8, ("publish", "atomic_write"): 3, ("swap", "db"): 12, ("ingest", "index"): 2
}  # fmt: skip
WRONG = ("lost", "doubled", "other")
MOST_SECONDS = 20.0  # for a failpoint of ingestion or swapping to be reached
console = Console()


@dataclass(frozen=True)
class Plan:
    """One kill: during what, of whom, and where; `point` None is a random moment."""

    mode: str
    victim: str
    point: str | None


@dataclass
class Kill:
    """What one kill did."""

    number: int
    mode: str
    victim: str
    point: str | None
    moment: str = ""
    reached: bool = True  # whether the failpoint was reached, or the worker still ran
    restart_seconds: float | None = None
    found: Findings = field(default_factory=Findings)


def failpoints() -> list[str]:
    """Every failpoint of the program, found in its text."""
    found: set[str] = set()
    for folder in ("store", "adapters", "daemon"):
        for path in (ROOT / folder).glob("*.py"):
            found |= set(re.findall(r'failpoint\("([\w.]+)"\)', path.read_text("utf-8")))
    return sorted(found)


def plans(kills: int, rng: random.Random) -> list[Plan]:
    """The kills in order. In each mode every failpoint comes before any comes twice."""
    # Nothing is forgotten here: tests/integration/test_forgetting_killed.py dies at those points.
    points = [p for p in failpoints() if not p.startswith("forget.")]
    own = {mode: [p for p in points if p.startswith(some)] for mode, some in POINTS.items()}
    own["ingest"] += sorted(set(points) - {p for some in own.values() for p in some})
    bags = {mode: itertools.cycle(rng.sample(some, len(some))) for mode, some in own.items()}
    counts: Counter[str] = Counter()
    out = []
    for mode in itertools.islice(itertools.cycle(MODES), kills):
        turn = counts[mode]
        counts[mode] += 1
        if mode == "train":
            out.append(Plan(mode, ("worker", "daemon")[turn % 2], None))
        elif mode != "publish" and turn % 4 == 0:
            out.append(Plan(mode, "daemon", None))
        else:
            point = next(bags[mode])
            most = MOST_HITS.get((mode, point.partition(".")[0]), 1 if mode == "publish" else 4)
            out.append(Plan(mode, "daemon", f"{point}:{rng.randint(1, most)}"))
    return out


class Trial:
    """One home through all its kills."""

    def __init__(self, folder: Path, models: Path, rng: random.Random) -> None:
        self.rng = rng
        self.home = make_home(folder / "home", models)
        self.watched = folder / "chats"
        self.watched.mkdir()
        self.promised = Promised(self.watched)
        self.round_seconds = self.work_seconds = 5.0  # all of a round; its worker after imports
        self.counter = 0
        self.worker: int | None = None  # of a round whose daemon was killed
        self.daemon = self.start()
        self.daemon.call("POST", "/v1/sources", {"path": str(self.watched), "kind": "chat"})

    # The daemon's life

    def start(self, point: str | None = None) -> RealDaemon:
        """A new daemon; armed to die at `point` if one is given."""
        armed = {"ACCLIMATE_FAILPOINT": point} if point else {}
        self.daemon = RealDaemon(self.home.root, **armed)
        try:
            self.daemon.ready()
        except (httpx.HTTPError, KeyError):
            if self.daemon.process.poll() is None:
                raise
        return self.daemon

    def stop(self) -> None:
        """SIGTERM, as between two kills."""
        code = self.daemon.terminate(20)
        self.daemon.client.close()
        if code != 0:
            raise RuntimeError(f"the daemon ended with {code} on SIGTERM; see {self.daemon.said}")

    # Preparing

    def name(self) -> str:
        self.counter += 1
        return f"n{self.counter:05d}"

    def add(self, count: int) -> None:
        """Examples to learn, acknowledged."""
        names = [self.name() for _ in range(count)]
        self.promised.sent |= set(names)
        self.daemon.add(*names)
        self.promised.names |= set(names)

    def learn(self) -> None:
        """A round that nothing disturbs."""
        self.add(4)
        self.promised.round_open = True
        began = time.monotonic()
        round_id = self.daemon.call("POST", "/v1/rounds", {})["round"]
        while self._phase(round_id) == "start":
            time.sleep(0.02)
        started = time.monotonic()
        ended = self.daemon.wait(round_id)
        self.round_seconds, self.work_seconds = (time.monotonic() - t for t in (began, started))
        if ended["state"] not in ("accepted", "rejected"):
            raise RuntimeError(f"an undisturbed round {ended['state']}: {ended['error']}")
        if ended["state"] == "accepted":
            self.promised.live = {ended["adapter"]}
            self.promised.versions.add(ended["adapter"])
        self.promised.round_open = False

    def go_live(self, version: str) -> None:
        self.promised.live.add(version)
        self.daemon.call("POST", "/v1/adapters/live", {"version": version})
        self.promised.live = {version}

    # The kills

    def one(self, number: int, plan: Plan) -> Kill:
        """Prepares, kills, looks, restarts, looks again."""
        kill = Kill(number, plan.mode, plan.victim, plan.point)
        if plan.mode in ("train", "publish"):
            self.add(4)
            if self.rng.random() < 0.5:
                self.go_live("base")  # or the distance from the base would add up
        if plan.point is not None:
            self.stop()
            self.start(plan.point)
        work: Callable[[Plan, Kill], None] = {
            "ingest": self._ingest, "train": self._train, "publish": self._publish,
            "swap": self._swap,
        }[plan.mode]  # fmt: skip
        with contextlib.suppress(httpx.HTTPError):
            work(plan, kill)
        if self.daemon.process.poll() is not None or plan.victim == "daemon":
            self.daemon.kill()
            if self.daemon.process.returncode != -signal.SIGKILL:
                kill.found.other.append(f"the daemon ended with {self.daemon.process.returncode}")
            with self.copied() as conn:
                Look(self.home.root, self.promised, conn, kill.found).stopped()
            began = time.monotonic()
            self.start()
            kill.restart_seconds = round(time.monotonic() - began, 2)
            if self.daemon.process.poll() is not None:
                kill.found.other.append("the daemon did not start again")
                return kill
        self._resend()
        with self.database() as conn:
            Look(self.home.root, self.promised, conn, kill.found).running(self.daemon)
        self._worker_ends(kill)
        return kill

    def _ingest(self, plan: Plan, kill: Kill) -> None:
        """Texts are posted and files saved, renamed, appended to and deleted meanwhile."""
        ending = threading.Event()
        threads = [
            threading.Thread(target=self._post, args=(ending,)),
            threading.Thread(target=self._save, args=(ending,)),
        ]
        for thread in threads:
            thread.start()
        if (plan.point or "").startswith("index."):
            time.sleep(1)
            ending.set()  # the index is written when every chunk has its vector
        self._until_dead(plan, kill, self.rng.uniform(0.1, 2.0))
        if self.rng.random() < 0.5:
            time.sleep(0.2)  # files go on being saved while nobody looks
        ending.set()
        for thread in threads:
            thread.join()

    def _train(self, plan: Plan, kill: Kill) -> None:
        """A moment of a round, from its start to a little after its end."""
        self.promised.round_open = True
        round_id = self.daemon.call("POST", "/v1/rounds", {})["round"]
        moment = self.rng.uniform(0, 1.05 * self.round_seconds)
        if self.rng.random() < 0.6:
            # Most of the time goes by while the worker imports torch; mostly kill it at its work.
            while self._phase(round_id) == "start":
                time.sleep(0.02)
            moment = self.rng.uniform(0, max(0.5, self.work_seconds))
        time.sleep(moment)
        now = self.daemon.call("GET", f"/v1/rounds/{round_id}")
        progress = now["progress"] or {}
        kill.moment = f"{moment:.2f} s, {progress.get('phase', now['state'])}"
        pid = progress.get("pid")
        kill.reached = pid is not None
        if plan.victim == "daemon":
            os.kill(self.daemon.pid, signal.SIGKILL)
            self.daemon.process.wait()
            self.worker = pid
            return
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended = self.daemon.wait(round_id)
        if ended["state"] == "accepted":
            kill.reached = False
        self.daemon.ask("live")  # serving goes on

    def _phase(self, round_id: int) -> str | None:
        progress = self.daemon.call("GET", f"/v1/rounds/{round_id}")["progress"]
        return progress["phase"] if progress else None

    def _publish(self, _plan: Plan, kill: Kill) -> None:
        """A round whose daemon dies at a failpoint."""
        self.promised.round_open = True
        pid = None
        with contextlib.suppress(httpx.HTTPError):
            path = f"/v1/rounds/{self.daemon.call('POST', '/v1/rounds', {})['round']}"
            while (now := self.daemon.call("GET", path))["state"] == "running":
                pid = (now["progress"] or {}).get("pid", pid)
                time.sleep(0.03)
            time.sleep(0.3)  # what comes after the verdict
        self._note(kill)
        if not kill.reached:
            os.kill(self.daemon.pid, signal.SIGKILL)
        self.worker = pid

    def _swap(self, plan: Plan, kill: Kill) -> None:
        """`live` moves all the time while somebody chats."""
        ending = threading.Event()
        threads = [
            threading.Thread(target=self._move, args=(ending,)),
            threading.Thread(target=self._chat, args=(ending,)),
        ]
        for thread in threads:
            thread.start()
        self._until_dead(plan, kill, self.rng.uniform(0.05, 1.5))
        ending.set()
        for thread in threads:
            thread.join()

    def _until_dead(self, plan: Plan, kill: Kill, seconds: float) -> None:
        if plan.point is None:
            time.sleep(seconds)
            kill.moment = f"{seconds:.2f} s"
        else:
            end = time.monotonic() + MOST_SECONDS
            while self.daemon.process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            self._note(kill)
        if self.daemon.process.poll() is None:
            os.kill(self.daemon.pid, signal.SIGKILL)
            self.daemon.process.wait()

    def _note(self, kill: Kill) -> None:
        """A failpoint that was not reached is a kill at a random moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.process.wait(0.5)  # its socket is closed before it can be waited for
        kill.reached = self.daemon.process.poll() is not None
        kill.moment = kill.point or ""

    def _worker_ends(self, kill: Kill) -> None:
        """Nobody reads a killed daemon's worker any more: it has to go by itself.

        At the latest when it has imported torch, which a restarted daemon does not wait for.
        """
        end = time.monotonic() + 60
        pid, self.worker = self.worker, None
        while pid is not None and psutil.pid_exists(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return
            if time.monotonic() > end:
                kill.found.other.append(f"worker {pid} outlived its daemon")
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)

    # Loads, each in a thread of its own, until the daemon is gone

    def _post(self, ending: threading.Event) -> None:
        rng = random.Random(self.counter)
        with contextlib.suppress(httpx.HTTPError):
            while not ending.is_set():
                names = [f"p{self.name()}" for _ in range(rng.randint(1, 3))]
                text = "\n".join(map(fact, names))
                self.promised.sent |= set(names)
                self.promised.unsure[f"{names[0]}.jsonl"] = text
                body = {"name": f"{names[0]}.jsonl", "text": text}
                self.daemon.call("POST", "/v1/examples", body)
                del self.promised.unsure[f"{names[0]}.jsonl"]
                self.promised.names |= set(names)
                time.sleep(rng.random() * 0.03)

    def _save(self, ending: threading.Event) -> None:
        rng = random.Random(-self.counter)
        while not ending.is_set():
            choice = rng.random()
            if choice < 0.6 or len(self.promised.files) < 4:
                path = self.watched / f"{self.name()}.jsonl"
                self._write(path, [f"f{self.name()}" for _ in range(rng.randint(1, 3))], rng)
            else:
                path = rng.choice(sorted(self.promised.files))
                if choice < 0.75:
                    self._write(path, [*self.promised.files[path], f"f{self.name()}"], rng)
                elif choice < 0.9:
                    other = self.watched / f"{self.name()}.jsonl"
                    path.rename(other)
                    self.promised.files[other] = self.promised.files.pop(path)
                    if path in self.promised.bad:
                        self.promised.bad = self.promised.bad - {path} | {other}
                else:
                    path.unlink()
                    del self.promised.files[path]
                    self.promised.bad.discard(path)
            time.sleep(rng.random() * 0.05)

    def _write(self, path: Path, names: list[str], rng: random.Random) -> None:
        """Saves a file as editors do: beside it, then renamed over it."""
        lines = [fact(name) for name in names]
        torn = rng.random() < 0.3
        if torn:
            lines.insert(1, '{"messages": [')
        self.promised.sent |= set(names)
        part = path.with_name(f".{path.name}")
        part.write_text("\n".join(lines), encoding="utf-8")
        part.replace(path)
        self.promised.files[path] = names
        self.promised.bad = self.promised.bad | {path} if torn else self.promised.bad - {path}

    def _move(self, ending: threading.Event) -> None:
        rng = random.Random(self.counter)
        with contextlib.suppress(httpx.HTTPError):
            while not ending.is_set():
                self.go_live(rng.choice(["base", *sorted(self.promised.versions)]))
                time.sleep(rng.random() * 0.05)

    def _chat(self, ending: threading.Event) -> None:
        with contextlib.suppress(httpx.HTTPError):
            while not ending.is_set():
                reply = self.daemon.ask("live", 4)
                self.promised.messages.add(reply["acclimate"]["message_id"])

    def _resend(self) -> None:
        """A client that got no answer asks again: it must not become two."""
        for name, text in list(self.promised.unsure.items()):
            self.daemon.call("POST", "/v1/examples", {"name": name, "text": text})
            self.promised.names |= set(NAME.findall(text))
            del self.promised.unsure[name]

    # Looking

    @contextlib.contextmanager
    def copied(self) -> Iterator[sqlite3.Connection]:
        """The database as the kill left it: recovering a copy leaves the real one to the daemon."""
        with tempfile.TemporaryDirectory(dir=self.home.root.parent) as folder:
            for path in self.home.root.glob("acclimate.db*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, folder)
            with contextlib.closing(sqlite3.connect(Path(folder, "acclimate.db"))) as conn:
                yield conn

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.home.db, timeout=30)) as conn:
            yield conn


def show(kills: list[Kill]) -> Table:
    """One row a mode."""
    table = Table("", "kills", "failpoints", "lost", "doubled", "other", "slowest restart")
    modes = [*dict.fromkeys(MODES)]
    for mode in [*modes, "all"]:
        own = [k for k in kills if mode in (k.mode, "all")]
        points = [k for k in own if k.point]
        slowest = max((k.restart_seconds or 0.0 for k in own), default=0.0)
        table.add_row(
            mode,
            str(len(own)),
            f"{sum(k.reached for k in points)} of {len(points)}",
            *(
                str(sum(len(getattr(k.found, w)) for k in own))
                for w in ("lost", "doubled", "other")
            ),
            f"{slowest:.1f} s",
            end_section=mode == modes[-1],
        )
    return table


def default_models() -> Path:
    """Where `make models` puts them, unless ACCLIMATE_TEST_MODELS says otherwise."""
    return Path(os.environ.get("ACCLIMATE_TEST_MODELS") or ROOT / ".cache" / "models")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, default=default_models(), help="has the embedder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "kills.json")
    parser.add_argument("--keep", action="store_true", help="leave the home in place")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acclimate-kills-"))
    rng = random.Random(options.seed)
    began = time.monotonic()
    kills: list[Kill] = []
    trial = Trial(folder, options.models, rng)
    try:
        trial.learn()
        trial.learn()
        for number, plan in enumerate(plans(options.kills, rng), start=1):
            kill = trial.one(number, plan)
            kills.append(kill)
            where = f"at {kill.point}" if kill.point else f"after {kill.moment}"
            missed = "" if kill.reached else " (not reached)"
            verdict = "ok" if not kill.found.violations else "VIOLATED"
            console.print(f"{number:3} {kill.mode:8} {kill.victim:7} {where}{missed}: {verdict}")
            for line in [*kill.found.lost, *kill.found.doubled, *kill.found.other][:10]:
                console.print(f"      {line}", highlight=False)
            if trial.daemon.process.poll() is not None:
                break
    finally:
        trial.daemon.kill()
    console.print(show(kills))
    with contextlib.closing(sqlite3.connect(trial.home.db)) as conn:
        counts = {
            table: conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("examples", "documents", "rounds", "adapters", "swaps", "messages")
        }
    violations = sum(kill.found.violations for kill in kills)
    report = {
        "kills": len(kills),
        "violations": violations,
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "in_the_end": counts,
        "each": [asdict(kill) for kill in kills],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    console.print(f"{len(kills)} kills, {violations} violations, {report['seconds']} s; in the end:"
                  f" {', '.join(f'{n} {what}' for what, n in counts.items())}")  # fmt: skip
    if options.keep or violations:
        console.print(f"home: {trial.home.root}")
    else:
        shutil.rmtree(folder)
    return 1 if violations or len(kills) < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
