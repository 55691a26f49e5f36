"""Logs are readable, rotate, and keep secrets to themselves."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from acclimate.daemon import log


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logging.raiseExceptions = True


def test_json_lines_with_bound_keys_from_both_kinds_of_loggers() -> None:
    stream = io.StringIO()
    log.set_up(stream=stream)
    with structlog.contextvars.bound_contextvars(round=7):
        structlog.get_logger().info("round_started", adapter="v0003")
        logging.getLogger("some.library").warning("careful %d", 3)
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (ours["event"], ours["adapter"], ours["round"], ours["level"]) == (
        "round_started",
        "v0003",
        7,
        "info",
    )
    assert (theirs["event"], theirs["round"], theirs["level"]) == ("careful 3", 7, "warning")


def test_a_terminal_gets_words() -> None:
    stream = io.StringIO()
    log.set_up(stream=stream, as_json=False)
    structlog.get_logger().info("swap_done", adapter="v0003")
    assert "swap_done" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_secrets_and_the_persons_words_are_hidden(tmp_path: Path) -> None:
    stream = io.StringIO()
    log.set_up(stream=stream, file=tmp_path / "daemon.log")
    structlog.get_logger().error("oops", token="S3CRET", prompt="S3CRET", Authorization="S3CRET")
    for text in (stream.getvalue(), (tmp_path / "daemon.log").read_text()):
        assert "oops" in text
        assert "S3CRET" not in text


def test_levels(tmp_path: Path) -> None:
    stream = io.StringIO()
    log.set_up(level="warning", stream=stream)
    structlog.get_logger().info("quiet")
    logging.getLogger("httpx").info("GET /v1/search?q=private")
    assert stream.getvalue() == ""
    with pytest.raises(ValueError, match="loud"):
        log.set_up(level="loud", stream=stream)


def test_the_file_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_ROTATE_BYTES", 2000)
    log.set_up(stream=io.StringIO(), file=tmp_path / "daemon.log")
    for number in range(200):
        structlog.get_logger().info("event", number=number)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    assert all(path.stat().st_size <= 2000 for path in files)


def test_a_released_file_is_opened_again_where_its_folder_is(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    log.set_up(stream=io.StringIO(), file=folder / "daemon.log")
    structlog.get_logger().info("before")
    log.release_file()
    folder.rename(tmp_path / "pulled")
    structlog.get_logger().info("lost")
    assert not folder.exists()
    (tmp_path / "pulled").rename(folder)
    structlog.get_logger().info("after")
    events = [
        json.loads(line)["event"] for line in (folder / "daemon.log").read_text().splitlines()
    ]
    assert events == ["before", "after"]
