"""Prepares llama.cpp for this process; the one place that `llama_cpp` is imported from.

Its worker threads must not spin and its log must not reach stdout or stderr. Knows no models.
"""

import ctypes
import importlib.util
import logging
import os
import sys
from collections import deque
from types import FrameType
from typing import TYPE_CHECKING, Any

# OpenMP's threads meet after every operation and spin while they wait. With its default patience
# one token took 3 s on two cores that another process kept busy; with this one 30 ms, and no
# difference on an idle machine. It is read when the library is loaded, so it stands before that.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _low_level() -> Any:
    """The module of llama.cpp's functions alone: importing its package would load the high-level
    half besides, which takes a third of a second and is not used here."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or "llama_cpp" in sys.modules:
        return importlib.import_module("llama_cpp.llama_cpp")
    # A package that was not run yet stands in for it meanwhile.
    sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    finally:
        del sys.modules["llama_cpp"]


if TYPE_CHECKING:
    import llama_cpp as llama_cpp
else:
    llama_cpp = _low_level()

LOG = logging.getLogger("acclimate.llama")
LEVELS = {3: logging.WARNING, 4: logging.ERROR}  # ggml.h; 1 debug, 2 info, 5 goes on
KEPT_LINES = 8
EXPECTED = "model default pooling_type"  # the reader asks for another one

_complaints: deque[str] = deque(maxlen=KEPT_LINES)
_last_level = 0


def _receive(level: int, text: bytes | None, _user_data: Any) -> None:
    global _last_level
    if level != 5:
        _last_level = level
    severity = LEVELS.get(_last_level)
    if severity is None or not text:
        return
    line = text.decode("utf-8", "replace").strip()
    if line.strip(".") and EXPECTED not in line:
        _complaints.append(line)
        LOG.log(severity, "%s", line)


# llama.cpp keeps only the address: the object has to live as long as the process.
_callback = llama_cpp.llama_log_callback(_receive)
llama_cpp.llama_log_set(_callback, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def model_params() -> llama_cpp.llama_model_params:
    """llama.cpp's defaults, without what breaks on some processors.

    Its matrix kernels for AMX end the process with an illegal instruction where gcc compiled them
    (llama.cpp#26954: the tiles' configuration is optimised away). They are reached only through
    weights that are repacked as they are loaded, so nothing is repacked on such a processor.
    """
    params = llama_cpp.llama_model_default_params()
    if b"AMX_INT8 = 1" in llama_cpp.llama_print_system_info():
        params.use_extra_bufts = False
    return params


class LoadedModel:
    """A llama_model that is freed when its last user lets go of this object."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer

    def __del__(self) -> None:
        llama_cpp.llama_model_free(self.pointer)


def in_callback(frame: FrameType | None) -> bool:
    """Whether a Python frame runs inside of native code, where ctypes drops every exception."""
    while frame is not None and frame.f_code is not _receive.__code__:
        frame = frame.f_back
    return frame is not None


def complaint() -> str:
    """llama.cpp's latest warning or error, for an error message; forgotten once read."""
    line = _complaints[-1] if _complaints else "llama.cpp gave no reason"
    _complaints.clear()
    return line


def give_memory_back() -> None:
    """Return freed memory to the system; glibc keeps tens of MB of a freed context otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
