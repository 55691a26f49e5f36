"""Somebody else's adapters as files: which are read, into which numbers, and which are refused."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from acclimate.adapters import foreign, lora
from acclimate.adapters.gguf_check import read_header
from acclimate.store.errors import AdapterError

SHA = "a" * 64
PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "bias": "none"}
HEAD = "base_model.model.model.layers"
RANDOM = np.random.default_rng(7)


def peft(
    folder: Path, sizes: dict[str, tuple[int, int]], rank: int = 4, **config: Any
) -> dict[str, Any]:
    """A PEFT folder as peft saves it: random numbers for modules of these (out, in) sizes."""
    weights: dict[str, Any] = {}
    for path, (rows, columns) in sizes.items():
        a = RANDOM.standard_normal((rank, columns)).astype(np.float32)
        b = RANDOM.standard_normal((rows, rank)).astype(np.float32)
        weights |= {f"{HEAD}.{path}.lora_A.weight": a, f"{HEAD}.{path}.lora_B.weight": b}
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / lora.WEIGHTS)
    (folder / lora.CONFIG).write_text(json.dumps({**PLAIN, **config}))
    return weights


SOME = {"1.self_attn.q_proj": (64, 64), "1.self_attn.k_proj": (32, 64), "0.mlp.up_proj": (128, 64)}


def tensors(path: Path) -> dict[str, Any]:
    return {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 2.0), (True, 4.0)])
def test_a_peft_folder_becomes_one_of_ours(
    tiny_llama: Path, tmp_path: Path, rslora: bool, scaling: float
) -> None:
    given = peft(tmp_path / "a", SOME, use_rslora=rslora, target_modules="all-linear")
    out = tmp_path / "out"
    found = foreign.rewrite(tmp_path / "a", tiny_llama, SHA, out)
    assert (found.rank, found.scaling, found.layers()) == (4, scaling, [0, 1])
    assert found.modules() == ["k_proj", "q_proj", "up_proj"]
    config = json.loads((out / lora.CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["layers_to_transform"]) == (4, 8.0, [0, 1])
    ours, served = lora.read_lora(out), tensors(out / lora.SERVED)
    for path in SOME:
        a, b = ours[f"model.layers.{path}"]
        np.testing.assert_array_equal(a, given[f"{HEAD}.{path}.lora_A.weight"])
        np.testing.assert_array_equal(2.0 * b, scaling * given[f"{HEAD}.{path}.lora_B.weight"])
    q = served["blk.1.attn_q.weight.lora_b"]
    b = given[f"{HEAD}.1.self_attn.q_proj.lora_B.weight"]
    np.testing.assert_array_equal(q, lora.permute(scaling * b, 4))
    assert not np.array_equal(q, scaling * b)
    assert len(served) == 6


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_gguf_file_becomes_one_of_ours_with_the_same_numbers(
    request: pytest.FixtureRequest, tmp_path: Path, tiny: ModuleType, architecture: str
) -> None:
    base = request.getfixturevalue(f"tiny_{architecture}")
    given = tiny.make_adapter(tmp_path / "a.gguf", architecture=architecture)
    found = foreign.rewrite(given, base, SHA, tmp_path / "out")
    assert (found.rank, found.scaling, len(found.pairs)) == (4, 1.0, 14)
    before, after = tensors(given), tensors(tmp_path / "out" / lora.SERVED)
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    # And the PEFT folder that was made of it is the way back.
    again = foreign.rewrite(tmp_path / "out", base, SHA, tmp_path / "again")
    assert again.scaling == 2.0
    one, two = (tmp_path / name / lora.SERVED for name in ("out", "again"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("kind", [np.float16, "bfloat16"])
def test_llama_cpps_own_scaling_and_short_floats_are_read(
    tiny_llama: Path, tmp_path: Path, kind: Any
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 12.0)
    a, b = (RANDOM.standard_normal(size).astype(np.float32) for size in ((4, 64), (128, 4)))
    for half, values in (("a", a), ("b", b)):
        name = f"blk.0.ffn_up.weight.lora_{half}"
        if kind == "bfloat16":
            bits = (values.view(np.uint32) >> 16).astype(np.uint16)
            writer.add_tensor(name, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, values.astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = foreign.rewrite(tmp_path / "a.gguf", tiny_llama, SHA, tmp_path / "out")
    assert found.scaling == 3.0
    ours = found.pairs["model.layers.0.mlp.up_proj"]
    np.testing.assert_allclose(ours[0], a, rtol=0.01)
    np.testing.assert_allclose(ours[1], 3 * b, rtol=0.01)


def test_bfloat16_in_a_peft_folder_is_read(tiny_llama: Path, tmp_path: Path) -> None:
    weights = peft(tmp_path / "a", {"0.mlp.up_proj": (128, 64)})
    header: dict[str, Any] = {}
    data = b""
    for name, values in weights.items():
        bits = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        place = [len(data), len(data) + len(bits)]
        header[name] = {"dtype": "BF16", "shape": values.shape, "data_offsets": place}
        data += bits
    text = json.dumps(header).encode()
    file = tmp_path / "a" / lora.WEIGHTS
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    found = foreign.rewrite(tmp_path / "a", tiny_llama, SHA, tmp_path / "out")
    a, _ = found.pairs["model.layers.0.mlp.up_proj"]
    np.testing.assert_allclose(a, weights[f"{HEAD}.0.mlp.up_proj.lora_A.weight"], rtol=0.01)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"rank_pattern": {"q_proj": 2}}, "rank varies"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha varies"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases"),
        ({"trainable_token_indices": [1]}, "embeddings"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base"),
        ({"peft_type": "IA3"}, "no LoRA adapter"),
        ({"r": 8}, "do not fit"),
        ({"r": "4"}, "r is 4"),
        ({"r": True}, "r is True"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": 0}, "scaling is 0"),
        ({"lora_alpha": float("nan")}, "scaling is nan"),
        ({"lora_alpha": "much"}, "cannot be read"),
        ({"lora_alpha": 1e39}, "not finite"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    tiny_llama: Path, tmp_path: Path, config: dict[str, Any], why: str
) -> None:
    peft(tmp_path / "a", SOME, **config)
    with pytest.raises(AdapterError, match=why) as caught:
        foreign.rewrite(tmp_path / "a", tiny_llama, SHA, tmp_path / "out")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ({"1.self_attn.q_proj": (60, 64)}, "do not fit"),
        ({"1.self_attn.q_proj": (64, 60)}, "do not fit"),
        ({"7.self_attn.q_proj": (64, 64)}, "the base has no model.layers.7"),
        ({"0.mlp.q_proj": (64, 64)}, "the base has no model.layers.0.mlp.q_proj"),
        ({"0.block_sparse_moe.gate": (64, 64)}, "no LoRA weight of a linear layer"),
        ({}, "no LoRA weights"),
    ],
)
def test_what_does_not_fit_the_base_is_refused(
    tiny_llama: Path, tmp_path: Path, sizes: dict[str, tuple[int, int]], why: str
) -> None:
    peft(tmp_path / "a", sizes)
    with pytest.raises(AdapterError, match=why):
        foreign.rewrite(tmp_path / "a", tiny_llama, SHA, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is written of what does not fit"


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        f"{HEAD}.0.mlp.up_proj.lora_magnitude_vector",
        f"{HEAD}.0.mlp.up_proj.weight",
    ],
)
def test_other_weights_beside_lora_are_refused(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    weights = peft(tmp_path / "a", SOME)
    save_file({**weights, name: np.zeros((4, 64), np.float32)}, tmp_path / "a" / lora.WEIGHTS)
    with pytest.raises(AdapterError, match="no LoRA weight"):
        foreign.rewrite(tmp_path / "a", tiny_llama, SHA, tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        (lora.CONFIG, b"", "cannot be read"),
        (lora.CONFIG, b"[" * 100_000, "cannot be read"),
        (lora.CONFIG, b"[]", "no object"),
        (lora.CONFIG, b"{}", "no LoRA adapter"),
        (lora.WEIGHTS, b"", "damaged"),
        (lora.WEIGHTS, b"\x80\x04\x95pickle", "damaged"),
        (lora.WEIGHTS, b"\xff" * 4000, "damaged"),
    ],
)
def test_damaged_peft_files_are_refused(
    tiny_llama: Path, tmp_path: Path, file: str, content: bytes, why: str
) -> None:
    peft(tmp_path / "a", SOME)
    (tmp_path / "a" / file).write_bytes(content)
    with pytest.raises(AdapterError, match=why):
        foreign.rewrite(tmp_path / "a", tiny_llama, SHA, tmp_path / "out")


def test_a_gguf_of_another_base_or_of_none_of_our_layers_is_refused(
    tiny_llama: Path, tiny_qwen2: Path, tmp_path: Path, tiny: ModuleType
) -> None:
    given = tiny.make_adapter(tmp_path / "a.gguf")
    foreign.rewrite(given, tiny_llama, SHA, tmp_path / "out")
    with pytest.raises(AdapterError, match="another base"):
        foreign.rewrite(tmp_path / "out" / lora.SERVED, tiny_llama, "b" * 64, tmp_path / "no")
    with pytest.raises(AdapterError, match="architecture"):
        foreign.rewrite(given, tiny_qwen2, SHA, tmp_path / "no")
    with pytest.raises(AdapterError, match="type"):
        foreign.rewrite(tiny_llama, tiny_llama, SHA, tmp_path / "no")


def test_a_base_whose_rows_are_not_known_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    data = tiny_llama.read_bytes().replace(b"llama", b"orion")
    (tmp_path / "other.gguf").write_bytes(data)
    assert read_header(tmp_path / "other.gguf").architecture == "orion"
    peft(tmp_path / "a", SOME)
    with pytest.raises(AdapterError, match="adapters for orion cannot"):
        foreign.rewrite(tmp_path / "a", tmp_path / "other.gguf", SHA, tmp_path / "out")
