"""Writes the base with an adapter merged into it, as one GGUF file that any llama.cpp serves.

    python -m acclimate.adapters.merge ADAPTER_DIR BASE_GGUF TARGET

Knows no home; needs no torch: the adapter's GGUF holds finished rows and scales.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize

from acclimate.store.errors import AcclimateError, AdapterError
from acclimate.store.files import fsync_file


def merge(adapter: Path, base: Path, target: Path) -> None:
    """W + B·A in float16 for every adapted tensor; the others are copied as they are.

    `adapter` is the GGUF of an adapter whose scale is baked in (alpha 0). Raises AdapterError
    when the target exists or the adapter does not fit.
    """
    if target.exists():
        raise AdapterError(f"{target} exists already", "name a new file")
    halves = {t.name: np.array(t.data, dtype=np.float32) for t in gguf.GGUFReader(adapter).tensors}
    reader = gguf.GGUFReader(base)
    names = {t.name for t in reader.tensors}
    missing = sorted({name.rpartition(".lora_")[0] for name in halves} - names)
    if missing:
        raise AdapterError(f"the base has no {missing[0]}", "merge it with the base it was made on")
    temporary = target.with_name(target.name + ".part")
    try:
        writer = gguf.GGUFWriter(temporary, _text(reader, gguf.Keys.General.ARCHITECTURE))
        for key, field in reader.fields.items():
            if not key.startswith("GGUF.") and key != gguf.Keys.General.ARCHITECTURE:
                subtype = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(key, field.contents(), field.types[0], sub_type=subtype)
        for tensor in reader.tensors:
            a, b = (halves.get(f"{tensor.name}.lora_{half}") for half in "ab")
            if a is None or b is None:
                # Packed blocks are bytes: the writer works the element shape out itself.
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
                continue
            weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            if weight.shape != (b.shape[0], a.shape[1]):
                raise AdapterError(f"{tensor.name} has another shape than its adapter")
            writer.add_tensor(tensor.name, (weight + b @ a).astype(np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        fsync_file(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _text(reader: Any, key: str) -> str:
    return str(reader.fields[key].contents())


def main(argv: Sequence[str]) -> int:
    """0 when written; 1 with one line on stderr otherwise."""
    adapter, base, target = (Path(a) for a in argv)
    try:
        merge(adapter / "adapter.gguf", base, target)
    except (AcclimateError, OSError, ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
