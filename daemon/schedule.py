"""When a round may start: often enough, with enough to learn, and only when nobody is disturbed.

The decision is a pure function; a thin shell around APScheduler asks it and starts the round.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

import psutil
import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from acclimate.daemon.config import ScheduleConfig, clock
from acclimate.store.errors import AcclimateError

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Conditions:
    """The machine and the buffer as they are now.

    `waiting` counts examples not yet taught, `relearning` those of them that an adapter had learned
    which was retired: however few, they are worth a round.
    """

    now: datetime
    waiting: int
    running: bool
    attached: bool
    pinned: bool
    on_battery: bool
    cpu_percent: float
    idle_seconds: float
    relearning: int = 0


def quiet(now: time, hours: str) -> bool:
    """Whether `now` lies within hours like "22:00-07:00", which may pass midnight."""
    if not hours:
        return False
    start, _, end = hours.partition("-")
    first, last = clock(start), clock(end)
    return first <= now < last if first <= last else now >= first or now < last


def obstacle(conditions: Conditions, config: ScheduleConfig) -> str | None:
    """Why no round may start now, in words; None when one may."""
    c = conditions
    if not config.enabled:
        return "scheduling is off"
    if not c.attached:
        return "the home's drive is away"
    if c.running:
        return "a round is running"
    if c.pinned:
        return "an adapter is pinned"
    if c.waiting < config.min_examples and not c.relearning:
        return f"{c.waiting} of {config.min_examples} examples wait"
    return unrest(c, config)


def unrest(conditions: Conditions, config: ScheduleConfig) -> str | None:
    """Why nothing may be done in the background now, in words; None when something may."""
    c = conditions
    if not c.attached:
        return "the home's drive is away"
    if c.running:
        return "a round is running"
    if quiet(c.now.time(), config.quiet_hours):
        return f"quiet hours ({config.quiet_hours})"
    if c.on_battery and not config.on_battery:
        return "on battery"
    if c.idle_seconds < config.idle_seconds:
        return "somebody is chatting"
    if c.cpu_percent > config.max_cpu_percent:
        return f"the machine is busy ({c.cpu_percent:.0f} % CPU)"
    return None


def machine() -> dict[str, Any]:
    """`on_battery` and `cpu_percent`, measured over half a second."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return {
        "on_battery": battery is not None and battery.power_plugged is False,
        "cpu_percent": psutil.cpu_percent(interval=0.5),
    }


class Schedule:
    """Asks at its times whether a round may start, and starts it.

    `conditions` gives the state of things, `start` begins a round.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        conditions: Callable[[], Conditions],
        start: Callable[[str], int],
    ) -> None:
        self._config = config
        self._conditions = conditions
        self._start = start
        self.last_obstacle: str | None = None
        # A laptop asleep at the due time must not skip the round, nor run it twice.
        self._scheduler = BackgroundScheduler(
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
            daemon=True,
        )

    def start(self) -> None:
        """Begins to ask, where scheduling is enabled."""
        if not self._config.enabled:
            self.last_obstacle = "scheduling is off"
            return
        self._scheduler.add_job(self.tick, self._trigger(), id="round")
        self._scheduler.start()

    def stop(self) -> None:
        """Asks no more; a round that runs is not touched."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def tick(self) -> int | None:
        """Starts a round if one may start; its id, or None."""
        try:
            self.last_obstacle = obstacle(self._conditions(), self._config)
            if self.last_obstacle is None:
                return self._start("schedule")
            log.debug("round_not_due", why=self.last_obstacle)
        except (AcclimateError, sqlite3.Error) as error:
            self.last_obstacle = str(getattr(error, "message", error))
            log.info("round_not_started", why=self.last_obstacle)
        return None

    def next_at(self) -> float | None:
        """Unix time of the next question, None when none is planned."""
        job = self._scheduler.get_job("round") if self._scheduler.running else None
        return job.next_run_time.timestamp() if job and job.next_run_time else None

    def _trigger(self) -> BaseTrigger:
        if self._config.cron:
            return CronTrigger.from_crontab(self._config.cron)
        minutes = self._config.every_minutes
        return IntervalTrigger(
            seconds=round(minutes * 60), jitter=min(60, int(minutes * 6)) or None
        )
