"""When a round may start, and that asking survives whatever the store says."""

import sqlite3
from datetime import datetime

import pytest

from acclimate.daemon.config import ScheduleConfig
from acclimate.daemon.schedule import Conditions, Schedule, obstacle, unrest
from acclimate.store.errors import AcclimateError, Detached


def ready(**changes: object) -> Conditions:
    fields: dict[str, object] = {
        "now": datetime(2026, 1, 5, 12),
        "waiting": 16,
        "running": False,
        "attached": True,
        "pinned": False,
        "on_battery": False,
        "cpu_percent": 5.0,
        "idle_seconds": 600.0,
    }
    return Conditions(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"attached": False, "running": True}, "the home's drive is away"),
        ({"running": True, "pinned": True}, "a round is running"),
        ({"pinned": True, "waiting": 0}, "an adapter is pinned"),
        ({"waiting": 15}, "15 of 16 examples wait"),
        ({"waiting": 1, "relearning": 1}, None),
        ({"now": datetime(2026, 1, 5, 6)}, "quiet hours (22:00-07:00)"),
        ({"on_battery": True}, "on battery"),
        ({"idle_seconds": 59.0}, "somebody is chatting"),
        ({"cpu_percent": 61.0}, "the machine is busy (61 % CPU)"),
    ],
)
def test_the_first_obstacle_is_named(changes: dict[str, object], why: str | None) -> None:
    assert obstacle(ready(**changes), ScheduleConfig(quiet_hours="22:00-07:00")) == why


def test_other_work_minds_what_disturbs_but_not_what_a_round_is_worth() -> None:
    config = ScheduleConfig(enabled=False)
    assert unrest(ready(waiting=0, pinned=True), config) is None
    assert unrest(ready(waiting=0, idle_seconds=1.0), config) == "somebody is chatting"
    assert unrest(ready(running=True), config) == "a round is running"


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("disk I/O error"), Detached("the drive is not there")]
)
def test_a_question_that_fails_starts_nothing_and_says_why(error: Exception) -> None:
    def conditions() -> Conditions:
        raise error

    schedule = Schedule(ScheduleConfig(), conditions, lambda _reason: 1)
    assert schedule.tick() is None
    said = error.message if isinstance(error, AcclimateError) else str(error)
    assert schedule.last_obstacle == said


def test_a_round_starts_when_nothing_is_in_its_way() -> None:
    schedule = Schedule(ScheduleConfig(), ready, lambda reason: len(reason))
    assert schedule.tick() == len("schedule") and schedule.last_obstacle is None
