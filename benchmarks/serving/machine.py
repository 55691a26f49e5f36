"""What a measurement was made on: the machine, and the versions of both sides."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import psutil

from acclimate.adapters.native import llama_cpp

PACKAGES = ("llama_cpp_python", "uvicorn", "starlette", "httpx")


def machine() -> dict[str, str | int]:
    """Processor, cores, memory, system."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or 0,
        "threads": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(psutil.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = dict(line.split(":", 1) for line in lines if ":" in line)
    told = {key.strip(): value.strip() for key, value in named.items()}
    numbers = "/".join(told.get(key, "?") for key in ("cpu family", "model", "stepping"))
    return f"{told.get('model name', platform.machine())} ({numbers})"


def ours() -> dict[str, str]:
    """Versions of what serves on our side; its llama.cpp is what llama-cpp-python has compiled."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = next(iter(sorted(folder.glob("libggml-base.*"))), None)
    return {
        "python": sys.version.partition(" ")[0],
        **{name: metadata.version(name) for name in PACKAGES},
        "llama": llama_cpp.llama_version().decode(),
        "ggml": _said(library, "ggml_version"),
        "commit": _said(library, "ggml_commit"),
        "system": llama_cpp.llama_print_system_info().decode(),
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", ""),
    }


def _said(library: Path | None, name: str) -> str:
    function = library and getattr(ctypes.CDLL(str(library)), name, None)
    if not function:
        return "unknown"
    function.restype = ctypes.c_char_p
    return str(function().decode())


def instructions(system: str) -> set[str]:
    """Instruction sets that a build of llama.cpp says it uses."""
    parts = system.replace("CPU :", "").split("|")
    return {p.split("=")[0].strip() for p in parts if p.strip().endswith("= 1")}
