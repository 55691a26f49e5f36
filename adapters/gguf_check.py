"""Reads a GGUF file's header with suspicion, before native code sees the file.

Every length is checked against the file before it is believed; knows no torch and no llama.cpp.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.store.errors import AdapterError, ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 100_000  # metadata keys, tensors
MAX_NAME_BYTES = 63  # ggml keeps 64 with the final NUL
MAX_KEY_BYTES = 1024
MAX_DIMENSIONS = 4
MAX_HEADER_BYTES = 256 * 2**20
MAX_SHOWN = 5  # problems named in one message

SCALARS = {  # metadata type → struct format
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
BOOL, STRING, ARRAY = 7, 8, 9
# ggml's types: (values, bytes) a block, as gguf.constants has them, whose import takes long.
SIZES = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},
    **{9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176)},
    **{14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98)},
    **{19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1)},
    **{25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54)},
    **{35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18)},
}
F32, F16, BF16 = 0, 1, 30
FLOATS: dict[int, np.dtype[Any]] = {
    F32: np.dtype("<f4"),
    F16: np.dtype("<f2"),
    BF16: np.dtype("<u2"),
}


class _Bad(Exception):
    """What is wrong with the file; becomes a ModelError or an AdapterError."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: `shape` as ggml counts, columns first; `start` in bytes into the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """Metadata (scalars and strings; an array is kept as its length) and tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


class _Cursor:
    """Reads forward through bytes and never past their end."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.place = 0

    def skip(self, size: int) -> int:
        """Step over `size` bytes; the place before."""
        before = self.place
        if size > len(self.data) - before:
            raise _Bad("it ends before its header does")
        self.place = before + size
        return before

    def scalar(self, form: str) -> Any:
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))[0]

    def string(self, limit: int) -> bytes:
        size = self.scalar("<Q")
        if size > limit:
            raise _Bad(f"a string of {size} bytes")
        place = self.skip(size)
        return bytes(self.data[place : place + size])

    def name(self, limit: int) -> str:
        try:
            return self.string(limit).decode("utf-8")
        except UnicodeDecodeError:
            raise _Bad("a name that is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind == ARRAY:
            return self._array()
        if kind == STRING:
            return self.string(len(self.data)).decode("utf-8", "replace")
        if kind not in SCALARS:
            raise _Bad(f"metadata of unknown type {kind}")
        if kind == BOOL and bytes(self.data[self.place : self.place + 1]) not in (b"\0", b"\1"):
            raise _Bad("a boolean that is neither 0 nor 1")
        return self.scalar(SCALARS[kind])

    def _array(self) -> int:
        kind, count = self.scalar("<I"), self.scalar("<Q")
        if kind in SCALARS:
            self.skip(count * struct.calcsize(SCALARS[kind]))
        elif kind == STRING:
            # The count is only believed as far as the bytes go: every string takes at least 8.
            if count * 8 > len(self.data) - self.place:
                raise _Bad("an array longer than the file")
            self._skip_strings(count)
        else:
            raise _Bad(f"an array of unknown type {kind}")
        return int(count)

    def _skip_strings(self, count: int) -> None:
        """A vocabulary has 100,000 of them, and a start waits for this."""
        read, data, place = struct.Struct("<Q").unpack_from, self.data, self.place
        try:
            for _ in range(count):
                place += 8 + read(data, place)[0]
        except (struct.error, OverflowError):
            place = len(data) + 1
        self.skip(place - self.place)


def read_header(path: Path) -> Header:
    """The header of a model's GGUF, read once while the file stays as it is.

    Raises ModelError when anything about it is not in order.
    """
    try:
        stat = path.stat()
        return _kept(path, stat.st_mtime_ns, stat.st_size)
    except (_Bad, OSError) as error:
        raise ModelError(f"{path} is damaged: {error}", "fetch the file again") from None


@lru_cache(maxsize=2)
def _kept(path: Path, _mtime_ns: int, _size: int) -> Header:
    return _read(path)


def check_adapter(path: Path, base: Header) -> Header:
    """Check a LoRA file against the base it is for; its header.

    Raises one AdapterError that lists what is wrong. Passing says that llama.cpp can load the
    file and will use every tensor of it, not that it was trained on this very base.
    """
    try:
        header = _read(path)
        problems = _mismatches(header, base)
        if not problems:
            problems = _not_finite(path, header)
    except (_Bad, OSError) as error:
        raise AdapterError(f"{path} is damaged: {error}", "restore it or roll back") from None
    if problems:
        more = len(problems) - MAX_SHOWN
        listed = "; ".join(problems[:MAX_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise AdapterError(f"{path} does not fit the base model: {listed}")
    return header


def _read(path: Path) -> Header:
    size = path.stat().st_size
    if size < 24:
        raise _Bad("it is too short")
    # A map instead of a read: only the pages of the header are touched.
    data: Any = np.memmap(path, dtype=np.uint8, mode="r", shape=(min(size, MAX_HEADER_BYTES),))
    cursor = _Cursor(memoryview(data))
    if bytes(cursor.data[cursor.skip(4) : 4]) != MAGIC:
        raise _Bad("it is not a GGUF file")
    version = cursor.scalar("<I")
    if version not in VERSIONS:
        raise _Bad(f"GGUF version {version} is not supported")
    tensor_count, key_count = cursor.scalar("<Q"), cursor.scalar("<Q")
    if max(tensor_count, key_count) > MAX_ENTRIES:
        raise _Bad(f"it claims {tensor_count} tensors and {key_count} keys")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.name(MAX_KEY_BYTES)
        if not key or key in metadata:
            raise _Bad(f"the key {key!r} is empty or there twice")
        metadata[key] = cursor.value(cursor.scalar("<I"))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 2**16 or alignment % 8:
        raise _Bad(f"an alignment of {alignment!r}")
    found = [_tensor(cursor) for _ in range(tensor_count)]
    return Header(metadata, _placed(found, cursor.place, alignment, size))


def _tensor(cursor: _Cursor) -> Tensor:
    name = cursor.name(MAX_NAME_BYTES)
    dimensions = cursor.scalar("<I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise _Bad(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.scalar("<Q") for _ in range(dimensions))
    kind = cursor.scalar("<I")
    if kind not in SIZES:
        raise _Bad(f"tensor {name!r} has unknown type {kind}")
    block, block_bytes = SIZES[kind]
    values = math.prod(shape)
    if not 0 < values < 2**62 or shape[0] % block:
        raise _Bad(f"tensor {name!r} has shape {shape}")
    return Tensor(name, shape, kind, cursor.scalar("<Q"), values // block * block_bytes)


def _placed(found: list[Tensor], end: int, alignment: int, size: int) -> dict[str, Tensor]:
    """The tensors with their place in the file; they must lie inside it, one after another."""
    base = -(-end // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    expected = 0
    for tensor in found:
        if tensor.name in tensors or not tensor.name:
            raise _Bad(f"the tensor {tensor.name!r} is nameless or there twice")
        # llama.cpp demands this order too, so that no two tensors can overlap.
        if tensor.start != expected:
            raise _Bad(f"tensor {tensor.name!r} is out of place")
        expected = -(-(tensor.start + tensor.size) // alignment) * alignment
        start = base + tensor.start
        if start + tensor.size > size:
            raise _Bad(f"tensor {tensor.name!r} lies outside the file")
        tensors[tensor.name] = Tensor(tensor.name, tensor.shape, tensor.kind, start, tensor.size)
    return tensors


def _mismatches(header: Header, base: Header) -> list[str]:
    """Everything about the adapter that does not fit the base, one line each."""
    problems = []
    for key, wanted in {
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.architecture": base.architecture,
    }.items():
        if header.metadata.get(key) != wanted:
            problems.append(f"{key} is {header.metadata.get(key)!r}, not {wanted!r}")
    alpha = header.metadata.get("adapter.lora.alpha")
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        problems.append(f"adapter.lora.alpha is {alpha!r}")
    if any(key.startswith("adapter.alora.") for key in header.metadata):
        problems.append("it is an aLoRA, which only works on part of a prompt")
    if not header.tensors:
        problems.append("it has no tensors")
    for name, tensor in header.tensors.items():
        target, _, part = name.rpartition(".lora_")
        if part not in ("a", "b"):
            problems.append(f"{name} is no LoRA tensor")
        elif tensor.kind not in FLOATS or len(tensor.shape) != 2:
            problems.append(f"{name} is not a matrix of floats")
        elif part == "a":
            problems += _pair_mismatches(target, tensor, header, base)
        elif f"{target}.lora_a" not in header.tensors:
            problems.append(f"{name} has no partner")
    return problems


def _pair_mismatches(target: str, a: Tensor, header: Header, base: Header) -> list[str]:
    """The base's weight is (in, out) as ggml counts, A is (in, rank) and B (rank, out)."""
    b = header.tensors.get(f"{target}.lora_b")
    weight = base.tensors.get(target)
    if b is None or len(b.shape) != 2:
        return [f"{a.name} has no partner"]
    if weight is None or len(weight.shape) != 2 or not target.startswith("blk."):
        return [f"the base has no layer weight {target}"]
    if (a.shape[0], b.shape[1]) != weight.shape or a.shape[1] != b.shape[0]:
        return [f"{target}: shapes {a.shape} and {b.shape} do not fit {weight.shape}"]
    return []


def _not_finite(path: Path, header: Header) -> list[str]:
    problems = []
    for tensor in header.tensors.values():
        kind = FLOATS[tensor.kind]
        count = tensor.size // kind.itemsize
        values = np.fromfile(path, dtype=kind, count=count, offset=tensor.start)
        if tensor.kind == BF16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if len(values) < count or not np.isfinite(values).all():
            problems.append(f"{tensor.name} holds a number that is not finite")
    return problems
