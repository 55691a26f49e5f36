"""Sets logging up, once: lines for a person on a terminal, JSON for a service manager.

Knows which keys are secret or private, and hides their values.
"""

import contextlib
import logging
import logging.handlers
import sys
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

HIDDEN = "[hidden]"
# Secrets, and the person's own words: neither is ever written to a log.
_SECRETS = {"token", "authorization", "password", "secret", "cookie", "api_key", "headers"}
_OWN_WORDS = {"text", "content", "prompt", "reply", "messages", "question", "answer", "body"}
_PRIVATE_KEYS = frozenset(_SECRETS | _OWN_WORDS)
_ROTATE_BYTES = 1_000_000
_ROTATED_FILES = 3


def set_up(
    *,
    level: str = "info",
    as_json: bool | None = None,
    stream: TextIO | None = None,
    file: Path | None = None,
) -> None:
    """Send structlog and the standard library's logging the same way.

    `as_json` None: JSON unless the stream is a terminal. `file`: also there, as JSON, in up to
    four files of 1 MB. Raises ValueError for an unknown level, OSError for the file.
    """
    stream = stream if stream is not None else sys.stderr
    as_json = not stream.isatty() if as_json is None else as_json
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no log level {level!r}: debug, info, warning, error")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=as_json),
        hide_private,
    ]
    handlers: list[logging.Handler] = [_handler(logging.StreamHandler(stream), as_json, shared)]
    if file is not None:
        rotating = logging.handlers.RotatingFileHandler(
            file, maxBytes=_ROTATE_BYTES, backupCount=_ROTATED_FILES, encoding="utf-8", delay=True
        )
        handlers.append(_handler(rotating, True, shared))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(number)
    # These say at "info" what was asked of them, the queries of a request among it.
    for noisy in ("httpx", "httpcore", "uvicorn.access", "watchdog", "apscheduler", "filelock"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    # A drive that is pulled out while its log is written must not print a traceback per line.
    logging.raiseExceptions = False


def release_file() -> None:
    """Close the log file, because its drive is gone; the next line opens it where it is back."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.handlers.RotatingFileHandler):
            with handler.lock or contextlib.nullcontext(), contextlib.suppress(OSError):
                stream: TextIO | None = handler.stream
                # The base class opens it again when it finds None.
                handler.stream = None
                if stream is not None:
                    stream.close()


def hide_private(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the values of keys that name a secret or the person's text."""
    for key in event:
        if key.lower() in _PRIVATE_KEYS:
            event[key] = HIDDEN
    return event


def _handler(
    handler: logging.Handler, as_json: bool, shared: list[structlog.typing.Processor]
) -> logging.Handler:
    tail: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=True)]
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    return handler
