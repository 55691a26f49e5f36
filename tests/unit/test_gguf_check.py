"""The suspicious GGUF reader against damaged, hostile and foreign files."""

import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest

from acclimate.adapters.gguf_check import Header, check_adapter, read_header
from acclimate.store.errors import AdapterError, ModelError

MUTATIONS = 300


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> Header:
    return read_header(tiny_llama)


def build(
    path: Path,
    tensors: dict[str, np.ndarray],
    *,
    architecture: str = "llama",
    kind: str = "adapter",
    adapter_type: str = "lora",
    alpha: float = 0.0,
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string("adapter.type", adapter_type)
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pair(rank: int = 2, dtype: str = "float32") -> dict[str, np.ndarray]:
    return {
        "blk.0.attn_q.weight.lora_a": np.ones((rank, 64), dtype=dtype),
        "blk.0.attn_q.weight.lora_b": np.ones((64, rank), dtype=dtype),
    }


def test_the_header_is_what_ggufs_own_reader_finds(tiny_llama: Path, base: Header) -> None:
    reader = gguf.GGUFReader(tiny_llama)
    found = {
        t.name: (tuple(t.shape.tolist()), int(t.tensor_type), t.data_offset, t.n_bytes)
        for t in reader.tensors
    }
    assert {t.name: (t.shape, t.kind, t.start, t.size) for t in base.tensors.values()} == found
    assert base.architecture == "llama"
    assert base.metadata["llama.block_count"] == 2
    assert base.metadata["tokenizer.ggml.tokens"] == len(
        reader.fields["tokenizer.ggml.tokens"].data
    )


def test_good_adapters_pass(
    tmp_path: Path, tiny_adapter: Callable[..., Path], base: Header
) -> None:
    assert len(check_adapter(tiny_adapter(1), base).tensors) == 28
    check_adapter(build(tmp_path / "half.gguf", pair(dtype="float16")), base)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"architecture": "qwen2"}, "general.architecture is 'qwen2', not 'llama'"),
        ({"kind": "model"}, "general.type is 'model'"),
        ({"adapter_type": "control_vector"}, "adapter.type is 'control_vector'"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": float("inf")}, "alpha is inf"),
    ],
)
def test_foreign_metadata_is_refused(
    tmp_path: Path, base: Header, options: dict[str, str], reason: str
) -> None:
    path = build(tmp_path / "a.gguf", pair(), **options)  # type: ignore[arg-type]
    with pytest.raises(AdapterError, match=reason):
        check_adapter(path, base)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"blk.0.attn_q.weight.lora_b": None}, "no partner"),
        ({"blk.0.attn_q.weight.lora_a": None}, "no partner"),
        ({"blk.0.attn_q.weight.lora_a": (2, 65)}, "do not fit"),
        ({"blk.0.attn_q.weight.lora_b": (64, 3)}, "do not fit"),
        ({"blk.0.attn_q.weight.lora_b": (63, 2)}, "do not fit"),
        ({"blk.9.attn_q.weight.lora_a": (2, 64), "blk.9.attn_q.weight.lora_b": (64, 2)}, "no lay"),
        ({"output.weight.lora_a": (2, 64), "output.weight.lora_b": (270, 2)}, "no layer weight"),
        ({"blk.0.attn_q.weight": (64, 64)}, "no LoRA tensor"),
        ({"blk.0.attn_norm.weight.lora_a": (64,)}, "not a matrix"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tmp_path: Path, base: Header, change: dict[str, tuple[int, ...] | None], reason: str
) -> None:
    tensors = pair()
    for name, shape in change.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = np.ones(shape, dtype=np.float32)
    with pytest.raises(AdapterError, match=reason):
        check_adapter(build(tmp_path / "a.gguf", tensors), base)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, base: Header, dtype: str, value: float
) -> None:
    tensors = pair(dtype=dtype)
    tensors["blk.0.attn_q.weight.lora_b"][63, 1] = value
    with pytest.raises(AdapterError, match="not finite"):
        check_adapter(build(tmp_path / "a.gguf", tensors), base)


def test_all_problems_are_named_in_one_error(tmp_path: Path, base: Header) -> None:
    path = build(
        tmp_path / "a.gguf", {"x": np.ones(3, dtype=np.float32)}, kind="model", alpha=np.nan
    )
    with pytest.raises(AdapterError) as caught:
        check_adapter(path, base)
    assert "general.type" in caught.value.message
    assert "x is no LoRA tensor" in caught.value.message


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [
        (0, "<4s", b"GGML"),
        (4, "<I", 99),
        (8, "<Q", 2**63),  # tensors
        (8, "<Q", 29),
        (16, "<Q", 2**40),  # keys
        (16, "<Q", 5),
        (24, "<Q", 2**62),  # length of the first key
        (24, "<Q", 2**64 - 1),
    ],
)
def test_false_counts_are_not_believed(
    tmp_path: Path,
    tiny_adapter: Callable[..., Path],
    base: Header,
    place: int,
    form: str,
    value: object,
) -> None:
    data = bytearray(tiny_adapter(1).read_bytes())
    struct.pack_into(form, data, place, value)
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(AdapterError):
        check_adapter(path, base)


def test_a_truncated_file_is_refused_at_any_length(
    tmp_path: Path, tiny_adapter: Callable[..., Path], base: Header
) -> None:
    data = tiny_adapter(1).read_bytes()
    path = tmp_path / "a.gguf"
    for length in [*range(0, 400, 7), *range(400, len(data), 2003), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(AdapterError):
            check_adapter(path, base)


def test_a_mutated_header_is_refused_or_harmless(
    tmp_path: Path, tiny_adapter: Callable[..., Path], base: Header
) -> None:
    """Whatever is changed, the answer is an AdapterError or a header that fits the base."""
    original = tiny_adapter(1).read_bytes()
    end = min(t.start for t in check_adapter(tiny_adapter(1), base).tensors.values())
    dice = np.random.default_rng(7)
    path = tmp_path / "a.gguf"
    refused = 0
    for _ in range(MUTATIONS):
        data = bytearray(original)
        for _ in range(int(dice.choice([1, 1, 1, 4]))):
            data[int(dice.integers(end))] = int(dice.choice([0, 255, dice.integers(256)]))
        path.write_bytes(data)
        try:
            header = check_adapter(path, base)
        except AdapterError:
            refused += 1
            continue
        assert all(t.start + t.size <= len(data) for t in header.tensors.values())
    assert refused > MUTATIONS // 2


def test_a_damaged_model_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_llama.read_bytes()[:-1])
    with pytest.raises(ModelError, match="outside the file"):
        read_header(path)
    with pytest.raises(ModelError):
        read_header(tmp_path / "missing.gguf")


def test_the_fixture_knows_the_shapes(tiny: ModuleType, base: Header) -> None:
    for name, (rows, columns) in tiny.SHAPES.items():
        assert base.tensors[f"blk.1.{name}.weight"].shape == (columns, rows)


def test_sizes_of_ggmls_types_are_those_of_gguf() -> None:
    from gguf.constants import GGML_QUANT_SIZES

    from acclimate.adapters.gguf_check import SIZES

    known = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    assert known == SIZES
