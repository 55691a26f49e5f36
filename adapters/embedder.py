"""Converts a MiniLM-style sentence encoder (safetensors + vocab.txt) to a GGUF for llama.cpp.

With what it was taught about questions added, if that is given: `benchmarks/persons`. Knows BERT's
tensor names and WordPiece; does not know torch, downloads or how vectors are used.
"""

import os
import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from acclimate.store.errors import ModelError
from acclimate.store.files import sha256_file

TOP_NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# The pooler head was trained for sentence pairs; mean pooling does not use it.
UNUSED = re.compile(r"embeddings\.position_ids|pooler\..*")
LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
# llama.cpp computes with these two in float32 only.
FLOAT32_NAMES = {"position_embd.weight", "token_types.weight"}
# llama.cpp puts "bos" in front of a text: for WordPiece that is [CLS].
SPECIAL_TOKENS = {
    "[UNK]": "unk_token_id",
    "[SEP]": "sep_token_id",
    "[PAD]": "pad_token_id",
    "[CLS]": "bos_token_id",
    "[MASK]": "mask_token_id",
}
LAYER_NORM_EPS = 1e-12


def gguf_name(name: str) -> str | None:
    """llama.cpp's name for a tensor of transformers' `BertModel`; None for one that is not used.

    Raises ModelError for a name that is not BERT's.
    """
    name = name.removeprefix("bert.")
    if UNUSED.fullmatch(name):
        return None
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    match = LAYER.fullmatch(name)
    if match is None or match[2] not in LAYER_NAMES:
        raise ModelError(f"Embedder: unknown tensor {name!r}", "only BERT encoders are supported")
    return f"blk.{match[1]}.{LAYER_NAMES[match[2]]}.{match[3]}"


def wordpiece_token(token: str) -> str:
    """A vocab.txt line as llama.cpp's WordPiece expects it: word starts marked, `##` dropped."""
    if token in SPECIAL_TOKENS:
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def convert(
    weights: Path, vocab: Path, target: Path, *, heads: int = 12, change: Path | None = None
) -> None:
    """Write `target`, a GGUF of architecture bert with mean pooling and float16 matrices.

    `heads` cannot be read off the weights; 12 is right for MiniLM-L6 (12 × 32 = 384). `change` is
    added to the weights (`changed`). The file appears whole or not at all. Raises ModelError for
    anything that is not such a model.
    """
    try:
        source = load_file(weights) if change is None else changed(weights, change)
        tokens = vocab.read_text(encoding="utf-8").splitlines()
    except (OSError, SafetensorError, UnicodeDecodeError) as error:
        raise ModelError(f"Embedder: cannot read {weights.parent}: {error}") from error
    tensors = {new: array for old, array in source.items() if (new := gguf_name(old))}
    layers = _check(tensors, tokens, heads)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _write(temporary, tensors, tokens, layers=layers, heads=heads)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def changed(weights: Path, change: Path) -> dict[str, np.ndarray]:
    """The weights with a change added: `NAME.up` (out, rank) · `NAME.down` (rank, in) to a matrix,
    `NAME.add` to a vector. Raises ModelError where it is one of other weights."""
    source: dict[str, np.ndarray] = load_file(weights)
    with safe_open(change, "numpy") as file:
        if (file.metadata() or {}).get("original_sha256") != sha256_file(weights):
            raise ModelError(f"Embedder: {change.name} is not a change of {weights}")
        parts = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    for part, array in parts.items():
        name, _, kind = part.rpartition(".")
        if kind == "add":
            source[name] = source[name] + array
        elif kind == "up":
            source[name] = source[name] + array @ parts[f"{name}.down"]
    return source


def _check(tensors: dict[str, np.ndarray], tokens: list[str], heads: int) -> int:
    """The number of layers; raises ModelError when a tensor is missing or its shape is off."""
    missing = [name for name in TOP_NAMES.values() if name not in tensors]
    layers = sum(name.endswith(".attn_q.weight") for name in tensors)
    missing += [
        f"blk.{layer}.{name}.{kind}"
        for layer in range(layers)
        for name in LAYER_NAMES.values()
        for kind in ("weight", "bias")
        if f"blk.{layer}.{name}.{kind}" not in tensors
    ]
    if missing or not layers:
        raise ModelError(f"Embedder: {len(missing)} tensors missing: {', '.join(missing[:5])}")
    rows, hidden = tensors["token_embd.weight"].shape
    if len(tokens) != rows or any(token not in tokens for token in SPECIAL_TOKENS):
        raise ModelError(
            f"Embedder: vocab.txt has {len(tokens)} tokens, the weights {rows}",
            "take both files from the same model",
        )
    if hidden % heads:
        raise ModelError(f"Embedder: width {hidden} is not a multiple of {heads} heads")
    if any(not np.isfinite(array).all() for array in tensors.values()):
        raise ModelError("Embedder: a weight is not a finite number", "fetch the file again")
    return layers


def _write(
    path: Path, tensors: dict[str, np.ndarray], tokens: list[str], *, layers: int, heads: int
) -> None:
    import gguf  # takes a tenth of a second, and is needed when a model is pulled

    writer = gguf.GGUFWriter(path, "bert")
    positions, hidden = tensors["position_embd.weight"].shape
    writer.add_name("sentence embedder")
    writer.add_context_length(positions)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(tensors["blk.0.ffn_up.weight"].shape[0])
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(LAYER_NORM_EPS)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(tensors["token_types.weight"].shape[0])
    writer.add_token_list([wordpiece_token(token) for token in tokens])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in SPECIAL_TOKENS else normal for token in tokens])
    for token, setter in SPECIAL_TOKENS.items():
        getattr(writer, f"add_{setter}")(tokens.index(token))
    for name, array in tensors.items():
        half = array.ndim == 2 and name not in FLOAT32_NAMES
        writer.add_tensor(name, array.astype(np.float16 if half else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
