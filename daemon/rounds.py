"""Rounds: starts the worker, follows it, publishes what the gate accepted, swaps it in.

Imports no torch; what the worker does wrong costs nothing but its round.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import structlog

from acclimate.adapters.gguf_check import read_header
from acclimate.adapters.mixture import Mixture, choose, round_key, seed_of
from acclimate.adapters.snapshot import (
    CANDIDATE_DIR,
    RESULT_FILE,
    SNAPSHOT_FILE,
    Canary,
    Pace,
    Precision,
    Result,
    Snapshot,
    taught_of,
)
from acclimate.adapters.thermostat import PER_ROUND, Held, kl_weight
from acclimate.adapters.training import Training
from acclimate.daemon.config import LearnConfig
from acclimate.daemon.cueing import Cueing
from acclimate.daemon.engine import Engine
from acclimate.daemon.scoping import SCOPE_FILE, Scoping
from acclimate.daemon.study import study
from acclimate.daemon.switch import Switch
from acclimate.daemon.updates import Updates
from acclimate.store import buffer, ledger, receipts
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError, AdapterError, RoundError
from acclimate.store.files import (
    Home,
    atomic_write,
    failpoint,
    publish_folder,
    remove_tree,
    sha256_file,
    temp_folder,
    version_name,
)

log = structlog.get_logger(__name__)

LEAST_SHARE = 0.5  # of general text, as an adapter's at least: see `Rounds._share`
RELEARN = "forget"  # why a round was started: the rest of what retired adapters had learned
# How far llama.cpp's predictions may stand from the worker's, and how much nearer to them than
# to the base's they must be. Quantised activations alone give about 0.004 nats.
MAX_CANARY_KL: dict[Precision, float] = {"float32": 0.05, "bfloat16": 0.05, "nf4": 0.3}
# Above this share of the machine's memory, "auto" trains on a base packed to 4 bits.
FLOAT32_MEMORY_SHARE = 0.4


WORKER_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc gives every tensor of some MB back to the system at once, to fetch and clear its pages
    # again in the next step: about a fifth of a round's time.
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    # Nor may each of its threads keep what it once had: 200 MB of two halves of a step.
    "MALLOC_ARENA_MAX": "1",
}


class Rounds:
    """At most one round at a time. All methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        db: Db,
        config: LearnConfig,
        engine: Engine,
        switch: Switch,
        base: Path,
        base_sha256: str,
        scoping: Scoping | None = None,
        cueing: Cueing | None = None,
        updates: Updates | None = None,
    ) -> None:
        self._home = home
        self._db = db
        self._config = config
        self._engine = engine
        self._switch = switch
        self._base = base
        self._base_sha256 = base_sha256
        self._scoping = scoping
        self._cueing = cueing
        self._updates = updates
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._relearn_next = False
        self._closed = False

    def start(self, reason: str = "manual") -> int:
        """Begins a round on what the buffer holds; returns its id.

        Raises RoundError when one runs already or there is nothing to learn.
        """
        with self._lock:
            self._refuse()
        self._study()  # takes its time where many notes are new: nobody waits for the lock
        with self._lock:
            self._refuse()
            self._running = running = self._begin(reason)
            running.start()
        return running.round_id

    def _study(self) -> None:
        study(self._db)
        if self._updates is None:
            return
        try:
            self._updates.find()
        except (AcclimateError, OSError) as error:  # what is new can be taught all the same
            log.warning("updates_not_found", error=str(error))

    def _refuse(self) -> None:
        if self._closed:
            raise RoundError("the daemon is stopping", "start it again")
        if self._running is not None:
            raise RoundError(f"round {self._running.round_id} is running", "wait for its verdict")

    def relearn(self) -> int | None:
        """Begins a round on what waits again since something was forgotten; its id.

        While another one runs it follows that one, and this gives None. More rounds follow until
        all of it was taught, or too many were rejected. Raises RoundError, also while an adapter is
        pinned: what is taught then waits on, and would be taught again and again.
        """
        if ledger.pinned(self._db):
            raise RoundError("an adapter is pinned", "acclimate unpin")
        with self._lock:
            if self._running is not None:
                self._relearn_next = True
                return None
        return self.start(RELEARN)

    def _begin(self, reason: str) -> _Running:
        # In one transaction: what is forgotten from here on finds the round that has it.
        with self._db.write():
            parent = ledger.live(self._db)
            on = None if parent is None else ledger.adapter(self._db, parent)
            key, rejected, seed, mixture = self._choose(on)
            round_id = ledger.start_round(
                self._db,
                parent,
                seed,
                [e.id for e in mixture.new],
                [e.id for e in mixture.replay],
                [e.id for e in mixture.held_out],
                key,
            )
        folder = self._home.cache / "rounds" / f"{round_id:06d}"
        try:
            remove_tree(folder)
            folder.mkdir(parents=True)
            cache, cores = self._home.models / "anchors", os.cpu_count() or 1
            pace = Pace.load(cache, cores)
            precision = self._precision(pace)
            drift = self._config.drift / self._share(parent)
            snapshot = Snapshot(
                round=round_id,
                seed=seed,
                threads=self._config.threads or (pace.threads if pace else cores),
                base=self._base,
                base_sha256=self._base_sha256,
                precision=precision or "float32",
                by_pace=precision is None,
                anchor_cache=cache,
                checkpoint=self._home.checkpoint,
                parent=None if parent is None else self._home.adapter_dir(parent),
                parent_version=parent,
                brought=_brought(on),
                training=Training(
                    rank=self._config.rank,
                    alpha=2.0 * self._config.rank,
                    top_layers=self._config.top_layers or None,
                    exposures=self._config.exposures,
                    learning_rate=self._config.learning_rate,
                    kl_weight=kl_weight(drift, _held(on), rejected),
                ),
                limits={
                    "max_general_rise_parent": PER_ROUND * drift,
                    "max_general_rise_base": drift,
                },
                new=mixture.new,
                replay=mixture.replay,
                held_out=mixture.held_out,
            )
            atomic_write(folder / SNAPSHOT_FILE, snapshot.model_dump_json().encode(), 0o600)
            failpoint("round.snapshot")
            return _Running(self, round_id, folder, snapshot, reason)
        except (AcclimateError, OSError) as error:
            ledger.finish_round(self._db, round_id, "failed", error=str(error))
            raise RoundError(f"the round cannot start: {error}", "acclimate doctor") from error

    def _choose(self, on: ledger.Adapter | None) -> tuple[str, int, int, Mixture]:
        """What a round on this adapter is about, as a hash; how often just that was rejected; its
        seed; its examples. Raises RoundError."""
        limit, caps = self._config.max_new, self._config.caps()
        lost = ledger.often_taken_back(self._db, None if on is None else on.version)
        new = buffer.snapshot(self._db, limit=limit, replay=0, caps=caps, taken_back=lost).new
        if not new:
            raise RoundError(
                "there is nothing new to learn",
                "add a chat source; why others wait: acclimate examples --state pending",
            )
        key = round_key(map(taught_of, new), None if on is None else on.sha256)
        rejected = ledger.rejections(self._db, key)
        seed = seed_of(key, rejected)
        found = buffer.snapshot(
            self._db,
            limit=limit,
            replay=self._config.replay,
            seed=seed,
            caps=caps,
            taken_back=lost,
        )
        waited = frozenset(e.id for e in new if e.state == "held-out")
        rehearsed = [*map(taught_of, found.replay)]
        return key, rejected, seed, choose([*map(taught_of, new)], rehearsed, waited, seed)

    def _share(self, parent: int | None) -> float:
        """What of the adapter's drift is felt: the share of general text that it answers itself,
        and half at least, since some talk about the person's own matters is general as well."""
        if self._scoping is None:
            return 1.0
        adapter = None if parent is None else version_name(parent)
        return max(LEAST_SHARE, self._scoping.share(adapter))

    def _precision(self, pace: Pace | None) -> Precision | None:
        """What to train in; None where the worker has to find out."""
        if self._config.base_precision != "auto":
            return self._config.base_precision
        room = psutil.virtual_memory().total * FLOAT32_MEMORY_SHARE
        if read_header(self._base).parameters * 4 > room:
            return "nf4"
        return None if pace is None else pace.precision()

    def current(self) -> dict[str, Any] | None:
        """Progress of the running round, None when none runs."""
        with self._lock:
            return self._running.progress() if self._running else None

    def cancel(self, round_id: int) -> None:
        """Ends the running round; its examples stay as they were."""
        with self._lock:
            running = self._running
        if running is None or running.round_id != round_id:
            raise RoundError(f"round {round_id} is not running", "acclimate status")
        running.kill("cancelled")

    def wait(self, round_id: int, timeout: float | None = None) -> bool:
        """Whether the round has ended within `timeout` seconds."""
        with self._lock:
            running = self._running
        if running is None or running.round_id != round_id:
            return True
        running.join(timeout)
        return not running.is_alive()

    def stop(self, timeout: float = 3.0, *, why: str = "the daemon stopped") -> None:
        """Kills the worker and starts nothing more."""
        with self._lock:
            self._closed = True
        self.interrupt(why, timeout)

    def interrupt(self, why: str, timeout: float = 3.0) -> None:
        """Kills the worker if one runs; later rounds may start."""
        with self._lock:
            running = self._running
        if running is not None:
            running.kill(why)
            running.join(timeout)

    def ended(self, running: _Running) -> None:
        """Called by the round's own thread as its last act."""
        with self._lock:
            if self._running is running:
                self._running = None
            again = self._relearn_next or (running.reason == RELEARN and running.judged)
            self._relearn_next = False
            again = again and not self._closed
        try:
            if again and receipts.waiting(self._db):
                self.relearn()
        except (AcclimateError, sqlite3.Error) as error:
            log.warning("not_relearned", error=str(error))  # the schedule will ask again

    # Publishing

    def publish(self, round_id: int, folder: Path, snapshot: Snapshot, result: Result) -> str:
        """Makes an accepted candidate an adapter and, unless pinned or moved, live; its name.

        Raises AdapterError when what llama.cpp serves is not what the worker measured, RoundError
        when one of its examples was forgotten meanwhile.
        """
        with self._switch.publishing:
            return self._publish(round_id, folder, snapshot, result)

    def _publish(self, round_id: int, folder: Path, snapshot: Snapshot, result: Result) -> str:
        version = ledger.next_version(self._db)
        name = version_name(version)
        candidate = folder / CANDIDATE_DIR
        for file, sha256 in result.files.items():
            if sha256_file(candidate / file) != sha256:
                raise AdapterError(f"{file} changed after it was written", "run the round again")
        gguf = candidate / ledger.ADAPTER_FILE
        final = self._home.adapter_dir(version)
        temporary = temp_folder(self._home.adapters)
        recorded = False
        self._switch.make_room()
        try:
            self._engine.load(name, gguf)
            served = self._check_canaries(name, result.canaries, MAX_CANARY_KL[snapshot.precision])
            files, share = self._with_scope(candidate, snapshot, result.files)
            self._take_up_cues(snapshot)
            card = {
                "version": version,
                "round": round_id,
                "created_at": time.time(),
                "measures": result.measures,
                "reasons": result.reasons,
                "served_kl": served,
                "files": files,
                "scope_share": share,
                **result.card,
            }
            for file in files:
                (candidate / file).replace(temporary / file)
            atomic_write(temporary / "card.json", json.dumps(card, indent=1).encode())
            failpoint("publish.filled")
            taught = [e.id for e in snapshot.new if str(e.id) not in result.card.get("skipped", {})]
            publish_folder(temporary, final)
            failpoint("publish.renamed")

            def record() -> None:
                nonlocal recorded
                with self._db.write():
                    ledger.publish(
                        self._db,
                        round_id,
                        version,
                        snapshot.parent_version,
                        result.files[ledger.ADAPTER_FILE],
                        1.0,
                        card,
                        taught,
                        [e.id for e in snapshot.held_out],
                        result.measures,
                        result.reasons,
                    )
                    buffer.set_surprise(self._db, round_id, result.surprise)
                recorded = True
                failpoint("publish.committed")

            self._switch.accept(version, record)
        except BaseException:
            if not recorded:
                # The next round gets the same number, and must find the name free.
                with contextlib.suppress(AcclimateError):
                    self._engine.unload(name)
                with contextlib.suppress(OSError):
                    remove_tree(final)
                    remove_tree(temporary)
            raise
        failpoint("publish.swapped")
        return name

    def _with_scope(
        self, candidate: Path, snapshot: Snapshot, files: dict[str, str]
    ) -> tuple[dict[str, str], float | None]:
        """The candidate's files and hashes with its scope's, and the scope's share of general text;
        None without one. What was held out is not in it: the adapter outlives its forgetting."""
        scope = self._scoping and self._scoping.fit([*snapshot.new, *snapshot.replay])
        if not scope:
            return files, None
        path = candidate / SCOPE_FILE
        atomic_write(path, scope.to_json())
        return {**files, SCOPE_FILE: sha256_file(path)}, round(scope.general, 3)

    def _take_up_cues(self, snapshot: Snapshot) -> None:
        if self._cueing is not None:
            try:
                self._cueing.take_up(snapshot.new)
            except AcclimateError as error:  # they are given them later
                log.warning("no_cues_yet", error=str(error))

    def _check_canaries(self, name: str, canaries: list[Canary], limit: float) -> float:
        """Mean KL of the worker's predictions from the served ones, in nats."""
        if not canaries:
            raise AdapterError("the worker left no canaries", "run the round again")
        served = moved = 0.0
        for canary in canaries:
            logits = self._engine.logits(canary.tokens, name).astype("float64")
            logits -= logits.max()
            total = math.log(float(sum(map(math.exp, logits))))
            for token, logp, base in zip(canary.ids, canary.logp, canary.base_logp, strict=True):
                p = math.exp(logp)
                served += p * (logp - (float(logits[token]) - total))
                moved += p * (logp - base)
        served, moved = served / len(canaries), moved / len(canaries)
        if not served <= min(limit, max(moved / 2, limit / 10)):
            raise AdapterError(
                f"llama.cpp serves this adapter differently from how it was measured"
                f" (KL {served:.4f} nats; it should have moved the base by {moved:.4f})",
                "the adapter that served before stays; please report this model",
            )
        return served


class _Running(threading.Thread):
    """One round's thread: follows the worker to its end, then acts on the result."""

    def __init__(
        self, rounds: Rounds, round_id: int, folder: Path, snapshot: Snapshot, reason: str
    ) -> None:
        super().__init__(name=f"round-{round_id}", daemon=True)
        self.round_id = round_id
        self._rounds = rounds
        self._folder = folder
        self._snapshot = snapshot
        self.reason = reason
        self.judged = False  # it was accepted or rejected
        self._began = time.monotonic()
        self._heard = self._began
        self._progress: dict[str, Any] = {"phase": "start", "step": 0, "steps": 0}
        self._worker: subprocess.Popen[str] | None = None
        self._killed: str | None = None
        self._paused = False
        self._error: dict[str, str] = {}
        self._guard = threading.Lock()

    def progress(self) -> dict[str, Any]:
        """A JSON-able line for `status` and the progress bar."""
        return {
            **self._progress,
            "round": self.round_id,
            "seconds": round(time.monotonic() - self._began, 1),
            "paused": self._paused,
            "reason": self.reason,
            "examples": len(self._snapshot.new),
            "pid": self._worker.pid if self._worker else None,
        }

    def kill(self, why: str) -> None:
        """Ends the worker at once; the round is recorded as failed with this reason."""
        with self._guard:
            if self._killed is None:
                self._killed = why
            if self._worker is not None and self._worker.poll() is None:
                self._worker.kill()

    def run(self) -> None:
        """Follows the worker, then publishes or records; never raises."""
        bound = log.bind(round=self.round_id)
        try:
            self._follow()
            self._finish()
        except AcclimateError as error:
            bound.error("round_failed", error=error.message)
            self._fail(str(error))
        except Exception as error:
            bound.exception("round_failed")
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self.kill("")
            try:
                remove_tree(self._folder)
                if self.judged:
                    self._rounds._home.drop_checkpoint()
            except OSError as error:
                bound.warning("round_folder_left", error=str(error))
            self._rounds.ended(self)

    def _follow(self) -> None:
        with self._guard:
            if self._killed is not None:
                return
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "acclimate.adapters.worker", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, **WORKER_ENVIRONMENT},
                start_new_session=True,  # see worker.lower_priority
            )
        log.info("round_started", round=self.round_id, pid=self._worker.pid, reason=self.reason)
        ticker = threading.Thread(target=self._tick, name="round-tick", daemon=True)
        ticker.start()
        assert self._worker.stdout is not None  # noqa: S101 - it is a pipe, for the type checker
        for line in self._worker.stdout:
            self._heard = time.monotonic()
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                self._hear(event)
        self._worker.wait()
        ticker.join()

    def _hear(self, event: dict[str, Any]) -> None:
        kind = event.pop("event", None)
        if kind in ("phase", "progress"):
            self._progress = {**self._progress, "done": 0, "total": 0, **event}
            if kind == "phase":
                log.info("round_phase", round=self.round_id, phase=event.get("phase"))
        elif kind == "step":
            self._progress = {**self._progress, **event}
        elif kind == "error":
            self._error = {k: str(v) for k, v in event.items()}

    def _tick(self) -> None:
        """Pauses the worker while somebody is being answered; ends one that hangs."""
        config, engine, worker = self._rounds._config, self._rounds._engine, self._worker
        while worker is not None and worker.poll() is None:
            wanted = engine.busy or (
                self._paused and engine.idle_seconds < config.resume_after_seconds
            )
            with self._guard:
                if wanted != self._paused and worker.poll() is None:
                    worker.send_signal(signal.SIGSTOP if wanted else signal.SIGCONT)
                    self._paused = wanted
            if self._paused:
                self._heard = time.monotonic()
            elif time.monotonic() - self._heard > config.stall_seconds:
                self.kill(f"the worker was silent for {config.stall_seconds:.0f} s")
            time.sleep(0.05)

    def _finish(self) -> None:
        db, round_id = self._rounds._db, self.round_id
        if self._killed is not None:
            self._fail(self._killed)
            return
        code = self._worker.returncode if self._worker else None
        path = self._folder / RESULT_FILE
        if code is not None and code > 0:
            self._rounds._home.drop_checkpoint()  # should it be what the worker failed on
        if code != 0 or not path.is_file():
            said = " ".join(filter(None, (self._error.get("message"), self._error.get("hint"))))
            self._fail(said or f"the worker ended with {_exit_word(code)}")
            return
        try:
            result = Result.model_validate_json(path.read_bytes())
            skipped = {int(k): str(v) for k, v in result.card.get("skipped", {}).items()}
        except (ValueError, AttributeError) as error:
            raise RoundError("the worker's result cannot be read", "run the round again") from error
        failpoint("round.result")
        for example_id, reason in skipped.items():
            buffer.mark(db, [example_id], "quarantined", reason)
        if not result.accepted:
            ledger.finish_round(
                db, round_id, "rejected", {**result.measures, "card": result.card}, result.reasons
            )
            self.judged = True
            log.info("round_rejected", round=round_id, reasons=result.reasons)
            return
        self._progress = {**self._progress, "phase": "publish"}
        try:
            name = self._rounds.publish(round_id, self._folder, self._snapshot, result)
        except AdapterError as error:
            ledger.finish_round(
                db, round_id, "rejected", result.measures, [f"served: {error.message}"]
            )
            self.judged = True
            log.error("round_rejected", round=round_id, reasons=[error.message])
            return
        self.judged = True
        log.info("round_accepted", round=round_id, adapter=name)

    def _fail(self, why: str) -> None:
        try:
            ledger.finish_round(self._rounds._db, self.round_id, "failed", error=why)
        except Exception as error:  # the home may be gone; reconcile writes it at the next start
            log.error("round_not_recorded", round=self.round_id, error=str(error))


def _held(adapter: ledger.Adapter | None) -> Held | None:
    """How its round held it to the base; None of the base, and where no round of ours made it."""
    if adapter is None:
        return None
    measured = (adapter.card.get("measures") or {}).get("general_base")
    weight = (adapter.card.get("training") or {}).get("kl_weight")
    if not measured or not weight:
        return None
    risen = measured["after"] - measured["before"] - (_brought(adapter) or 0.0)
    return Held(weight, risen, adapter.scale)


def _brought(adapter: ledger.Adapter | None) -> float | None:
    """What general text lost to the adapter from elsewhere that this one descends from, in nats a
    token; None of that one itself, of which nothing was measured yet."""
    if adapter is None:
        return 0.0
    return adapter.card.get("brought", 0.0) if adapter.round_id is not None else None


def _exit_word(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name + (" (out of memory?)" if code == -9 else "")
    return f"exit code {code}"
