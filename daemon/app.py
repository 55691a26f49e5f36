"""The daemon: puts the parts together, keeps them running, and takes them down in order.

Decides nothing itself; every part is told what it needs and knows no other.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import structlog
import uvicorn

from acclimate.adapters import native
from acclimate.daemon import log as logs
from acclimate.daemon import models, schedule, tuning
from acclimate.daemon.attach import Attachment
from acclimate.daemon.config import Config
from acclimate.daemon.contexts import BASE
from acclimate.daemon.core import Core
from acclimate.daemon.cueing import Cueing
from acclimate.daemon.embed import Embedder
from acclimate.daemon.general import General
from acclimate.daemon.inquire import Inquirer
from acclimate.daemon.loading import Loading
from acclimate.daemon.lock import HomeLock, boot_id
from acclimate.daemon.notify import Notifier
from acclimate.daemon.probation import Probation
from acclimate.daemon.reader import Reader
from acclimate.daemon.retrieve import Retriever
from acclimate.daemon.rounds import Rounds
from acclimate.daemon.scoping import Scoping
from acclimate.daemon.server import create_app
from acclimate.daemon.switch import Switch
from acclimate.daemon.token import load_or_create_token
from acclimate.daemon.updates import Updates
from acclimate.daemon.watch import Watcher
from acclimate.store import ledger, receipts, sources
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError, ConfigError
from acclimate.store.files import Home, atomic_write, version_name
from acclimate.store.index import Index
from acclimate.store.reconcile import reconcile
from acclimate.store.renew import renew

log = structlog.get_logger(__name__)

RUN_FILE = "run.json"
HOST = "127.0.0.1"
STOP_SECONDS = 2  # what running replies get to end after SIGTERM
EMBED_BATCH = 4
PROBATION_SECONDS = 5.0  # how often the evidence on the live adapter is looked at
PROBATION_PAUSE_SECONDS = 60.0  # after an error
BUSY_SECONDS = 1.0
TUNE_SECONDS = 20.0  # of rest before it is measured how the engine is best used
TUNE_LOAD = 50.0  # percent of all processors
TRIM_SECONDS = 12.0  # memory is given back in the first idle seconds, not again and again


class Daemon:
    """One home being served. `serve` blocks until a signal; everything else runs in threads."""

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self.home = loading.home
        self.config = loading.config
        self.lock = loading.lock
        self.engine = loading.engine
        self.base_sha256 = loading.base_sha256
        self.notifier = Notifier()
        self.attachment = Attachment(self.home)
        self.stopping = threading.Event()
        self.work = threading.Event()  # there may be chunks without a vector
        self.watcher: Watcher | None = None

    def serve(self) -> int:
        """Runs until SIGTERM or SIGINT. Raises AcclimateError when it cannot start."""
        with contextlib.ExitStack() as stack:
            logs.set_up(level=self.config.log.level, file=self.home.log / "daemon.log")
            stack.callback(logs.release_file)
            listener = listen(self.config.server.port)
            stack.callback(listener.close)
            self.port = listener.getsockname()[1]
            self._open(stack)
            server = self._server()
            self._background(stack)
            stack.callback(self._forget_run_file)
            self._write_run_file()
            log.info("ready", port=self.port, live=self.engine.live)
            self.notifier.ready(f"serving {self.engine.live} on port {self.port}")
            # From here on a signal ends the server, not what is under way in this thread: until
            # uvicorn has its own handlers, and once it raises the signal again after its end.
            signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
            # What is here stays: the collector need not look at it again.
            gc.freeze()
            gc.enable()
            try:
                server.run(sockets=[listener])
            finally:
                log.info("stopping")
                self.notifier.stopping()
        return 0

    def _open(self, stack: contextlib.ExitStack) -> None:
        """Everything that serving needs, each with its end on the stack."""
        home, config = self.home, self.config
        self.db = Db(home.db, attached=home.attached)
        stack.callback(self.db.close)
        for line in reconcile(self.db, home):
            log.warning("reconciled", what=line)
        if renewed := renew(self.db):
            log.info("store_renewed", **{f"{name}_changed": n for name, n in vars(renewed).items()})
        self.loading.start(on_base=ledger.live(self.db) is None)
        embedder = models.embedder_path(home, config)
        embedder_sha256 = models.base_sha256(home, embedder)
        self.embedder = Embedder(embedder, mmap=not home.portable)
        stack.callback(self.embedder.close)
        # By its hash, too: vectors of another file under the same name do not compare.
        name = f"{config.models.embedder} {embedder_sha256}"
        self.index = Index(self.db, home.index, embedder=name)
        stack.callback(self._flush_index)
        self.retriever = Retriever(self.db, self.index, self.embedder, config.retrieval)
        self.prompt = self.loading.ready()
        self.switch = Switch(home, self.db, self.engine, self.base_sha256)
        self._load_live()
        embed = self.embedder.embed
        self.general = General(home.cache, embed, name)
        self.cueing = Cueing(self.db, embed, self.general)
        self.scoping = Scoping(home, embed, name, self.general, self.cueing, config.scope)
        reader = Reader.shipped(self.embedder) if models.has_reader(config) else None
        self.rounds = Rounds(
            home,
            self.db,
            config.learn,
            self.engine,
            self.switch,
            self.loading.base,
            self.base_sha256,
            self.scoping,
            self.cueing,
            None if reader is None else Updates(self.db, embed, reader),
        )
        stack.callback(self.rounds.stop)
        self.schedule = schedule.Schedule(
            config.schedule, self._conditions, lambda reason: self.rounds.start(reason)
        )
        stack.callback(self.schedule.stop)
        self.probation = Probation(
            self.db,
            config.probation,
            self.engine,
            self.prompt,
            self.switch,
            idle=lambda: schedule.unrest(self._conditions(), config.schedule) is None,
            go_on=lambda: not (self.stopping.is_set() or self.engine.busy),
            taken_back=self._taken_back,
        )
        self.inquirer = self._inquirer()
        self.core = Core(
            home,
            config,
            self.db,
            self.index,
            engine=self.engine,
            prompt=self.prompt,
            retriever=self.retriever,
            rounds=self.rounds,
            schedule=self.schedule,
            on_sources=self._sources_changed,
            switch=self.switch,
            inquirer=self.inquirer,
            scoping=self.scoping,
            cueing=self.cueing if config.scope.cues else None,
            reader=reader if config.retrieval.wants_reader(self.engine.parameters) else None,
            embedder=self.embedder,
        )

    def _inquirer(self) -> Inquirer | None:
        """None where the base is not to write questions."""
        if not self.config.study.wants(self.engine.parameters):
            return None
        return Inquirer(
            self.db,
            self.engine,
            self.prompt,
            self.base_sha256,
            unrest=lambda: schedule.unrest(self._conditions(), self.config.schedule),
            wanted=lambda: not self.attachment.attached or self.rounds.current() is not None,
        )

    def _load_live(self) -> None:
        """Loads the live adapter; one that cannot serve, or that ended the process twice while it
        was loaded, gives way to the one before. Once may be a power cut."""
        while (version := ledger.live(self.db)) is not None:
            name = version_name(version)
            try:
                if ledger.begin_load(self.db, version) > 2:
                    raise AcclimateError(f"{name} ended the daemon twice when it was loaded")
                self.switch.load(version)
                self.engine.set_live(name)
            except AcclimateError as error:
                log.error("adapter_not_served", adapter=name, error=error.message)
                ledger.set_live(self.db, ledger.whole_ancestor(self.db, version), "crash")
            finally:
                ledger.end_load(self.db)
            if ledger.live(self.db) == version:
                return

    def _server(self) -> uvicorn.Server:
        app = create_app(self.core, token=load_or_create_token(self.home), port=self.port)
        return uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
                lifespan="off",
                ws="none",
            )
        )

    def _background(self, stack: contextlib.ExitStack) -> None:
        self._start_watcher()
        stack.callback(self._stop_watcher)
        self.attachment.start(self._detached, self._attached)
        stack.callback(self.attachment.stop)
        self.schedule.start()
        if self.inquirer is not None:
            self.inquirer.start()
            stack.callback(self.inquirer.stop)
        for target in (self._embed, self._beat, self._probate, self._tune):
            thread = threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            thread.start()
            stack.callback(thread.join, 2.0)
        stack.callback(self.work.set)  # or it would sleep on for its seconds
        stack.callback(self.stopping.set)

    # Threads

    def _embed(self) -> None:
        """Gives new chunks their vectors, a few at a time, and not while somebody is answered."""
        while not self.stopping.is_set():
            self.work.wait(5.0)
            self.work.clear()
            if BUSY_SECONDS < self.engine.idle_seconds < TRIM_SECONDS:
                native.give_memory_back()  # a request's garbage would stay resident
            changed = False
            try:
                while not self.stopping.is_set() and self.attachment.attached:
                    if self.engine.idle_seconds < BUSY_SECONDS:
                        self.stopping.wait(0.2)
                        continue
                    if self.retriever.embed_pending(EMBED_BATCH):
                        changed = True
                    elif not self.cueing.embed_pending(EMBED_BATCH):
                        break
                if changed:
                    self.index.flush_sometimes()
                if self.engine.live != BASE and self.attachment.attached:
                    # Or the first question would wait for them.
                    self.general.vectors(self.stopping.is_set)
            except (AcclimateError, sqlite3.Error, OSError) as error:
                if not self.stopping.is_set():
                    log.warning("embedding_stopped", error=str(error))
                self.stopping.wait(5.0)

    def _beat(self) -> None:
        """Tells the service manager that the decode thread lives; silence gets us restarted."""
        seconds = self.notifier.watchdog_seconds
        while seconds is not None and not self.stopping.wait(seconds):
            if self.engine.alive():
                self.notifier.watchdog()
            else:
                log.error("decode_thread_stuck")

    def _probate(self) -> None:
        """Watches the adapter that was made live last, and takes it back when it is worse."""
        while not self.stopping.wait(PROBATION_SECONDS):
            try:
                while self.attachment.attached and self.probation.step():
                    if self.stopping.is_set():
                        return
            except (AcclimateError, sqlite3.Error, OSError) as error:
                log.warning("probation_paused", error=str(error))
                self.stopping.wait(PROBATION_PAUSE_SECONDS)

    def _tune(self) -> None:
        """Measures once how the engine is best used here, for the next start on."""
        while not (self.loading.tuning_file.exists() or self.stopping.wait(TUNE_SECONDS)):
            busy = self.engine.idle_seconds < TUNE_SECONDS or self.rounds.current() is not None
            if busy or psutil.cpu_percent(interval=1.0) > TUNE_LOAD or not self.attachment.attached:
                continue
            try:
                found = tuning.measure(
                    self.engine.model_path,
                    self.loading.tuning_file,
                    go_on=lambda: not (self.engine.busy or self.stopping.is_set()),
                )
            except OSError as error:
                log.warning("not_tuned", error=str(error))
                return
            if found is not None:
                log.info("tuned", **asdict(found))
            elif not self.engine.busy:
                return  # the child failed, and would again

    def _taken_back(self, notice: str) -> None:
        self.rounds.interrupt("the adapter that it started from was taken back")
        self.notifier.status(notice)

    # Changes from outside

    def _start_watcher(self) -> None:
        self.watcher = Watcher(
            self.db, lambda: sources.list_sources(self.db), self._changed, self.config.watch
        )
        self.watcher.start()

    def _stop_watcher(self) -> None:
        if self.watcher is not None:
            self.watcher.stop(timeout=2.0)
            self.watcher = None

    def _changed(self, _source: sources.Source, _result: object) -> None:
        self.work.set()

    def _sources_changed(self, source: sources.Source) -> None:
        self.work.set()
        if self.watcher is not None:
            self.watcher.poke(source)

    def _detached(self) -> None:
        """The drive is gone: nothing may be written until it is back; answers go on."""
        self.rounds.interrupt("the home's drive went away")
        self._stop_watcher()
        self.db.close()
        self.lock.release()
        logs.release_file()
        self.notifier.status("the home's drive is away")

    def _attached(self) -> None:
        """The drive is back: take up again where the disk says that we were."""
        self.lock.acquire()
        self.db.reopen()
        for line in reconcile(self.db, self.home):
            log.warning("reconciled", what=line)
        self._start_watcher()
        self._write_run_file()
        self.work.set()
        self.notifier.status(f"serving {self.engine.live}")

    def _conditions(self) -> schedule.Conditions:
        attached = self.attachment.check()  # without its drive the database is not asked
        with self.inquirer.resting() if self.inquirer else contextlib.nullcontext():
            machine = schedule.machine()
        return schedule.Conditions(
            now=datetime.now(),
            waiting=ledger.waiting(self.db) if attached else 0,
            relearning=receipts.waiting(self.db) if attached else 0,
            running=self.rounds.current() is not None,
            attached=attached,
            pinned=attached and ledger.pinned(self.db),
            idle_seconds=self.engine.idle_seconds,
            **machine,
        )

    # Files

    def _write_run_file(self) -> None:
        content: dict[str, Any] = {"pid": os.getpid(), "port": self.port, "boot_id": boot_id()}
        atomic_write(self.home.root / RUN_FILE, json.dumps(content).encode())

    def _forget_run_file(self) -> None:
        with contextlib.suppress(OSError):
            (self.home.root / RUN_FILE).unlink(missing_ok=True)

    def _flush_index(self) -> None:
        try:
            self.index.flush()
        except (AcclimateError, sqlite3.Error, OSError) as error:
            log.warning("index_not_written", error=str(error))  # it is rebuilt from the database


def listen(port: int) -> socket.socket:
    """A listening socket on loopback. Raises ConfigError when the port is taken."""
    # Named, or asyncio leaves Nagle's algorithm on: a stream's chunks would wait for the client's
    # acknowledgement of the one before, 40 ms on Linux.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"port {port} cannot be used: {error.strerror}",
            "stop the other program, or set [server] port in config.toml",
        ) from None
    listener.listen(128)
    return listener


def run(loading: Loading) -> int:
    """Serves a home until SIGTERM or SIGINT; the process's exit code. Raises AcclimateError."""
    return Daemon(loading).serve()


@contextlib.contextmanager
def open_core(home: Home, config: Config) -> Iterator[Core]:
    """The operations on a home while no daemon serves it: locked, and without an engine."""
    with HomeLock(home):
        db = Db(home.db, attached=home.attached)
        try:
            reconcile(db, home)
            renew(db)
            index = Index(db, home.index)
            embedder: Path = models.embedder_path(home, config)
            with contextlib.ExitStack() as stack:
                model = Embedder(embedder) if embedder.is_file() else None
                if model is not None:
                    stack.callback(model.close)
                yield Core(
                    home,
                    config,
                    db,
                    index,
                    retriever=Retriever(db, index, model, config.retrieval),
                )
        finally:
            db.close()
