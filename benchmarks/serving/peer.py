"""llama.cpp's own server as a process, out of the xllamacpp wheel; run by the peer's Python.

    python peer.py MODEL.gguf CONTEXT_TOKENS SEQUENCES THREADS

Prints one line of JSON once it listens: where, and what it was built from. Serves until its input
is closed, so that it does not outlive whoever started it. Knows nothing of Acclimate.
"""

import ctypes
import json
import sys

import xllamacpp


def version(name: str) -> str:
    """What a function of the library says; empty where it has none of that name."""
    function = getattr(ctypes.CDLL(xllamacpp.xllamacpp.__file__), name, None)
    if function is None:
        return ""
    function.restype = ctypes.c_char_p
    return str(function().decode())


def main() -> None:
    model, context, sequences, threads = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = int(context)
    params.n_parallel = int(sequences)
    # One pool that all sequences share, as llama-server itself has it by default, and as ours.
    params.kv_unified = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.verbosity = 0
    params.ui = False
    server = xllamacpp.Server(params)
    about = {
        "address": server.listening_address,
        "package": f"xllamacpp {xllamacpp.__version__}",
        "build": f"b{xllamacpp.__version__.rpartition('.')[2]}",
        "llama": version("llama_version"),
        "ggml": version("ggml_version"),
        "compiler": xllamacpp.BUILD_INFO["compiler"],
        "system": xllamacpp.get_system_info(),
    }
    print(json.dumps(about), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
