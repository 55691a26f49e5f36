"""The whole loop on a week of a fictional person: watch, learn, gate, swap, ask, roll back.

Starts a real daemon on a fresh home and talks to it as any client does. Prints one table and
writes report.json; leaves the home in place.

    python examples/demo.py [--home demo-home] [--models DIR] [--report report.json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
console = Console()
KINDS = {"notes": "notes", "chats": "chat", "code": "code"}
# Facts and general questions are answered shortly; longer replies only cost time.
REPLY_TOKENS = 24


class Failed(SystemExit):
    """Something did not go as it must; the demo ends with this line."""

    def __init__(self, message: str) -> None:
        console.print(f"[red]{message}[/red]")
        super().__init__(1)


@dataclass
class Daemon:
    """A running daemon and a client for it."""

    home: Path
    process: subprocess.Popen[bytes] = field(init=False)
    client: httpx.Client = field(init=False)

    def start(self) -> float:
        """Starts the daemon; seconds from process start to the first token of a reply."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "acclimate.daemon", "--home", str(self.home), "run"],
            stderr=(self.home / "log" / "stderr.txt").open("ab"),
        )
        run_file = self.home / "run.json"
        while not run_file.is_file() or self._port(run_file) is None:
            if self.process.poll() is not None:
                raise Failed(f"the daemon ended; see {self.home}/log/stderr.txt")
            if time.monotonic() - began > 60:
                raise Failed("the daemon did not start within a minute")
            time.sleep(0.02)
        token = (self.home / "token").read_text().strip()
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self._port(run_file)}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=120,
            trust_env=False,
        )
        for _ in self.stream("Hello!", "live", retrieval=False):
            return time.monotonic() - began
        raise Failed("the daemon gave no token")

    def _port(self, run_file: Path) -> int | None:
        try:
            content = json.loads(run_file.read_text())
        except (OSError, ValueError):
            return None
        return int(content["port"]) if content["pid"] == self.process.pid else None

    def ask(self, question: str, model: str, *, retrieval: bool, tokens: int = REPLY_TOKENS) -> str:
        """One reply at temperature 0."""
        reply = self.call(
            "POST",
            "/v1/chat/completions",
            {
                "model": model,
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "max_tokens": tokens,
                "retrieval": retrieval,
            },
        )
        return str(reply["choices"][0]["message"]["content"])

    def stream(
        self, question: str, model: str, *, retrieval: bool, tokens: int = 64
    ) -> Iterator[str]:
        """The pieces of one reply, as they come."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "max_tokens": tokens,
            "temperature": 0,
            "retrieval": retrieval,
        }
        with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise Failed(response.read().decode())
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise Failed(chunk["error"]["message"])
                    for choice in chunk["choices"]:
                        if choice["delta"].get("content"):
                            yield choice["delta"]["content"]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """JSON in, JSON out; ends the demo on an error."""
        response = self.client.request(method, path, json=body if method != "GET" else None)
        if response.status_code >= 400:
            raise Failed(f"{method} {path}: {response.text}")
        return response.json()

    def resident(self) -> int:
        """Bytes of memory of the daemon process that are not pages of a model file."""
        process = psutil.Process(self.process.pid)
        total = process.memory_info().rss
        if not sys.platform.startswith("linux"):
            return total - sum(p.stat().st_size for p in (self.home / "models").glob("*.gguf"))
        mapped = sum(m.rss for m in process.memory_maps() if m.path.endswith(".gguf"))
        return total - mapped

    def stop(self) -> float:
        """SIGTERM; seconds until it has ended."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed("the daemon did not end on SIGTERM") from None
        return time.monotonic() - began


class Clock:
    """Announces the demo's stages and keeps how long each took."""

    def __init__(self) -> None:
        self.began = self._since = time.monotonic()
        self.stages: dict[str, float] = {}
        self._stage = ""

    def stage(self, title: str) -> None:
        """Ends the stage before; begins this one."""
        now = time.monotonic()
        if self._stage:
            self.stages[self._stage] = round(now - self._since, 1)
        self._stage, self._since = title, now
        if title:
            console.rule(title)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def hit(reply: str, answers: list[str]) -> bool:
    """Whether a reply holds one of the accepted answers as whole words."""
    text = reply.lower()
    return any(re.search(rf"(?<!\w){re.escape(a.lower())}(?!\w)", text) for a in answers)


@dataclass
class Score:
    """How many of how many were answered."""

    right: int
    total: int

    def __str__(self) -> str:
        return f"{self.right}/{self.total} ({self.share:.0%})"

    @property
    def share(self) -> float:
        return self.right / self.total if self.total else 0.0


Question = tuple[str, str, list[str]]  # kind, text, accepted answers


def personal_questions(data: dict[str, Any]) -> list[Question]:
    """Every wording of every fact, with its kind."""
    out: list[Question] = []
    for fact in data["questions"]:
        out.append(("exact", fact["exact"], fact["answers"]))
        out += [("reworded", text, fact["answers"]) for text in fact["reworded"]]
        out += [("roundabout", text, fact["answers"]) for text in fact["roundabout"]]
    out += [("notes", q["question"], q["answers"]) for q in data["notes_questions"]]
    return out


def examine(
    daemon: Daemon, questions: list[Question], model: str, *, retrieval: bool, label: str
) -> tuple[dict[str, Score], list[dict[str, Any]]]:
    """Asks them all, four at a time; scores by kind, and each reply."""
    from concurrent.futures import ThreadPoolExecutor

    with Progress(
        TextColumn(f"  {label}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(label, total=len(questions))

        def one(question: Question) -> str:
            reply = daemon.ask(question[1], model, retrieval=retrieval)
            bar.advance(task)
            return reply

        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(one, questions))
    rows = [
        {"kind": kind, "question": text, "reply": reply, "right": hit(reply, answers)}
        for (kind, text, answers), reply in zip(questions, replies, strict=True)
    ]
    scores = {
        kind: Score(sum(r["right"] for r in rows if r["kind"] == kind),
                    sum(r["kind"] == kind for r in rows))
        for kind in dict.fromkeys(r["kind"] for r in rows)
    }  # fmt: skip
    shown = "  ".join(f"{kind} {score}" for kind, score in scores.items())
    console.print(f"  {label}: {shown}")
    return scores, rows


def drop_files(source: Path, target: Path, stop: threading.Event) -> threading.Thread:
    """Copies the week into the watched folders file by file, as a person would save it."""

    def run() -> None:
        for path in sorted(source.rglob("*")):
            if path.is_file() and not stop.is_set():
                to = target / path.relative_to(source)
                part = to.with_name("." + to.name + ".saving")
                shutil.copyfile(path, part)
                part.replace(to)
                time.sleep(0.15)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_until_read(daemon: Daemon, examples: int, files: int) -> dict[str, Any]:
    """Waits until every file is read, every exchange buffered and every chunk indexed."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        status = daemon.call("GET", "/v1/status")
        documents = sum(s["documents"].get("ok", 0) for s in status["sources"])
        if (
            status["examples"]["pending"] >= examples
            and documents >= files
            and status["index"]["pending"] == 0
        ):
            return dict(status)
        time.sleep(0.3)
    raise Failed(f"the stream was not read within 90 s: {json.dumps(status)[:500]}")


class Traffic(threading.Thread):
    """One client that streams replies all the time, to see what a swap does to it."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self.daemon_ = daemon
        self.gaps: list[tuple[float, float]] = []  # (when, seconds since the piece before)
        self.failed = 0
        self.replies = 0
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.is_set():
            last = None
            try:
                for _ in self.daemon_.stream(
                    "Write a long story about my life.", "live", retrieval=False, tokens=200
                ):
                    now = time.monotonic()
                    if last is not None:
                        self.gaps.append((now, now - last))
                    last = now
                    if self.ending.is_set():
                        break
                self.replies += 1
            except (httpx.HTTPError, SystemExit, ValueError):
                self.failed += 1

    def finish(self) -> None:
        self.ending.set()
        self.join(30)


def learn(daemon: Daemon) -> dict[str, Any]:
    """One round with a progress bar; the finished round."""
    round_id = daemon.call("POST", "/v1/rounds", {})["round"]
    with Progress(
        TextColumn("  {task.description:<10}"), BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"), TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(), console=console, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("start", total=1, note="")
        while True:
            found = daemon.call("GET", f"/v1/rounds/{round_id}")
            if found["state"] != "running":
                break
            now = found.get("progress") or {}
            note = f"loss {now['loss']:.3f}" if "loss" in now else ""
            done, total = now.get("step", 0), now.get("steps") or 1
            if now.get("phase") == "anchors" and now.get("total"):
                done, total = now["done"], now["total"]
            bar.update(
                task, description=now.get("phase", "…"), completed=done, total=total, note=note
            )
            time.sleep(0.3)
    if found["state"] != "accepted":
        raise Failed(
            f"the round was {found['state']}: {found.get('reasons') or found.get('error')}"
        )
    return dict(found)


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def acclimate(home: Path, *words: str) -> None:
    """Runs one command of the command line."""
    command = [sys.executable, "-m", "acclimate.daemon", "--home", str(home), *words]
    if subprocess.run(command, check=False).returncode:
        raise Failed(f"acclimate {' '.join(words)} failed")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path("demo-home"))
    parser.add_argument("--models", type=Path, help="folder that holds the default models already")
    parser.add_argument("--report", type=Path, default=Path("report.json"))
    options = parser.parse_args()
    clock = Clock()
    home = options.home.absolute()
    data = json.loads((HERE / "questions.json").read_text("utf-8"))
    general_all = json.loads((HERE / "general.json").read_text("utf-8"))
    general: list[Question] = [
        ("general", q["question"], q["answers"]) for q in general_all if q.get("demo")
    ]
    personal = personal_questions(data)
    closed = [q for q in personal if q[0] != "notes"]
    # To save time the base, which cannot know, is not asked everything: nothing in a roundabout
    # way, and with passages, where a prompt is ten times as long, only a part.
    plain = [q for q in closed if q[0] != "roundabout"]
    few = [q for q in personal if q[0] in ("exact", "notes")]

    clock.stage("A fresh home")
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(home.with_name(home.name + "-stream"), ignore_errors=True)
    acclimate(home, "init", *(["--models", str(options.models)] if options.models else []))
    config = home / "config.toml"
    # The demo starts its one round itself.
    text = config.read_text("utf-8").replace("[server]\n", f"[server]\nport = {free_port()}\n", 1)
    text = text.replace("[schedule]\n", "[schedule]\nenabled = false\n", 1)
    config.write_text(text, "utf-8")

    daemon = Daemon(home)
    to_first_token = daemon.start()
    console.print(f"  daemon started: first token after {to_first_token:.1f} s")
    dropping = threading.Event()
    try:
        stream = home.with_name(home.name + "-stream")
        for name, kind in KINDS.items():
            (stream / name).mkdir(parents=True)
            daemon.call("POST", "/v1/sources", {"path": str(stream / name), "kind": kind})
        files = sum(p.is_file() for p in (HERE / "stream").rglob("*"))
        console.print(f"  watching {stream.name}/; {files} files are being saved into it now")
        saving = drop_files(HERE / "stream", stream, dropping)

        clock.stage("Before: the base model")
        general_before, general_rows = examine(
            daemon, general, "base", retrieval=False, label="general questions"
        )
        base, base_rows = examine(daemon, plain, "base", retrieval=False, label="base")
        saving.join()
        status = wait_until_read(daemon, examples=40, files=files)
        console.print(
            f"  read: {files} files, {status['examples']['pending']} exchanges,"
            f" {status['index']['size']} chunks in the index"
        )
        base_rag, base_rag_rows = examine(
            daemon, few, "base", retrieval=True, label="base + retrieval"
        )

        clock.stage("Learning: one round")
        finished = learn(daemon)
        version = finished["adapter"]
        card = daemon.call("GET", f"/v1/adapters/{version}")["card"]
        measures = card["measures"]
        alone = measures["general_base"]["after"] - measures["general_base"]["before"]
        share = card["scope_share"]
        drift = alone * share
        console.print(
            f"  accepted as {version}: trained {card['train_seconds']:.0f} s"
            f" ({card['round_seconds']:.0f} s with loading, anchors and measuring),"
            f" general ΔNLL {alone:+.4f}, felt in the {share:.0%} of general text that is not left"
            " to the base"
        )

        clock.stage("After: the adapter")
        live, live_rows = examine(daemon, closed, "live", retrieval=False, label="live")
        live_rag, live_rag_rows = examine(
            daemon, personal, "live", retrieval=True, label="live + retrieval"
        )
        general_after, general_after_rows = examine(
            daemon, general, "live", retrieval=False, label="general questions"
        )
        time.sleep(6)  # idle, it gives freed memory back
        resident = daemon.resident()

        clock.stage("Swapping under load: back and forward")
        traffic = Traffic(daemon)
        traffic.start()
        while len(traffic.gaps) < 30:
            time.sleep(0.05)
            if traffic.failed:
                raise Failed("the streaming client failed before any swap")
        swaps = []
        for target in ("base", version) * 3:
            swaps.append(time.monotonic())
            daemon.call("POST", "/v1/adapters/live", {"version": target})
            swaps.append(time.monotonic())
            time.sleep(0.6)
        traffic.finish()
        gaps = sorted(gap for _, gap in traffic.gaps)
        stall = gaps[-1]
        console.print(
            f"  {len(swaps) // 2} swaps while a client streamed: {traffic.failed} requests failed,"
            f" longest gap {stall * 1000:.0f} ms (median {gaps[len(gaps) // 2] * 1000:.0f} ms)"
        )
        history = daemon.call("GET", "/v1/adapters")
        if history["live"] != version:
            raise Failed(f"live is {history['live']}, not {version}")
        to_end = daemon.stop()
        console.print(f"  daemon ended in {to_end:.1f} s")
        clock.stage("")
    finally:
        dropping.set()
        if daemon.process.poll() is None:
            daemon.process.kill()

    kept = sum(
        b["right"] and a["right"] for b, a in zip(general_rows, general_after_rows, strict=True)
    )
    report = {
        "facts": len(data["questions"]),
        "scores": {
            name: {kind: [s.right, s.total] for kind, s in scores.items()}
            for name, scores in {
                "base": base, "base+retrieval": base_rag,
                "live": live, "live+retrieval": live_rag,
                "general_before": general_before, "general_after": general_after,
            }.items()
        },
        "general_kept": [kept, general_before["general"].right],
        "general_nll_change": drift,
        "adapter_nll_change": alone,
        "train_seconds": card["train_seconds"],
        "round_seconds": card["round_seconds"],
        "swap": {
            "swaps": len(swaps) // 2, "failed": traffic.failed,
            "longest_gap_ms": stall * 1000, "median_gap_ms": gaps[len(gaps) // 2] * 1000,
        },
        "resident_beyond_model_mb": resident / 1e6,
        "start_to_first_token_seconds": to_first_token,
        "stop_seconds": to_end,
        "seconds": clock.seconds,
        "stages": clock.stages,
        "adapter": card,
        "cores": os.cpu_count(),
        "replies": {
            "base": base_rows, "base+retrieval": base_rag_rows,
            "live": live_rows, "live+retrieval": live_rag_rows,
            "general_before": general_rows, "general_after": general_after_rows,
        },
    }  # fmt: skip
    options.report.write_text(json.dumps(report, indent=1, ensure_ascii=False), "utf-8")
    table = Table(title="A week with the default model", title_justify="left")
    for column in ("", "exact", "reworded", "roundabout", "facts in notes"):
        table.add_column(column, justify="left" if not column else "right")
    for name, scores in (
        ("base", base), ("base + retrieval", base_rag),
        ("live", live), ("live + retrieval", live_rag),
    ):  # fmt: skip
        kinds = ("exact", "reworded", "roundabout", "notes")
        table.add_row(name, *(str(scores[k]) if k in scores else "–" for k in kinds))
    console.print()
    console.print(table)
    figures = Table(show_header=False)
    for name, value in (
        ("general questions still answered", f"{kept} of {general_before['general'].right}"),
        ("general ΔNLL", f"{drift:+.4f} nats"),
        ("training time", f"{card['train_seconds']:.0f} s"),
        ("swaps: requests failed / longest stall", f"{traffic.failed} / {stall * 1000:.0f} ms"),
        ("daemon's memory beyond the model files", f"{resident / 1e6:.0f} MB"),
        ("daemon start to first token", f"{to_first_token:.1f} s"),
        ("the whole demo", f"{report['seconds']:.0f} s"),
    ):
        figures.add_row(name, value)
    console.print(figures)
    console.print(f"Every reply is in {options.report}. Chat with it:\n")
    program = os.path.relpath(Path(sys.executable).with_name("acclimate"))
    relative = os.path.relpath(home)
    console.print(f"  {program} --home {relative} run &\n  {program} --home {relative} chat\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
