"""Makes tiny random-weight GGUF models and LoRA adapters, for tests that need a real engine.

Knows GGUF; does not know the code under test, so that what it makes is an independent input.
"""

from pathlib import Path

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, FEED_FORWARD = 64, 2, 4, 2, 128
HEAD_WIDTH = HIDDEN // HEADS
CONTEXT = 2048
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "t h", "th e", "i n", "e r", "a n", "o n", "r e", "Ġ t", "Ġ a", "Ġ the"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_alphabet() -> list[str]:
    """GPT-2's 256 printable stand-ins for the bytes, in order of the byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return [table[byte] for byte in range(256)]


def _vocabulary(writer: gguf.GGUFWriter, copy_from: Path | None) -> int:
    """Writes tokenizer and chat template; returns the number of tokens.

    The synthetic one: 3 control tokens, then one token for each byte, then one for each merge,
    so token 3 + b is byte b and any byte string is a token sequence.
    """
    if copy_from is not None:
        reader = gguf.GGUFReader(copy_from)
        for name, field in reader.fields.items():
            if name.startswith("tokenizer."):
                kind = field.types[0]
                part = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(name, field.contents(), kind, part)
        return len(reader.fields["tokenizer.ggml.tokens"].data)
    tokens = SPECIAL + byte_alphabet() + [merge.replace(" ", "") for merge in MERGES]
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL)
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def make_model(
    path: Path, *, architecture: str = "llama", seed: int = 0, vocabulary_from: Path | None = None
) -> Path:
    """Write a random float32 model ("llama" or "qwen2") with 2 layers of width 64.

    Both llama.cpp and transformers' `gguf_file=` load it. The weights are wide enough that greedy
    decoding has clear winners, so texts can be compared across batch shapes.
    """
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("model")
    writer.add_name(f"tiny {architecture} {seed}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = _vocabulary(writer, vocabulary_from)
    writer.add_vocab_size(tokens)

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        values = random.standard_normal((rows, columns)) * scale / np.sqrt(columns)
        writer.add_tensor(name, values.astype(np.float32))

    def vector(name: str, size: int, value: float, spread: float) -> None:
        values = value + random.standard_normal(size) * spread
        writer.add_tensor(name, values.astype(np.float32))

    matrix("token_embd.weight", tokens, HIDDEN, 8.0)
    vector("output_norm.weight", HIDDEN, 1.0, 0.1)
    matrix("output.weight", tokens, HIDDEN, 4.0)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", HIDDEN, 1.0, 0.1)
        vector(block + "ffn_norm.weight", HIDDEN, 1.0, 0.1)
        matrix(block + "attn_q.weight", HIDDEN, HIDDEN, 1.5)
        matrix(block + "attn_k.weight", KV_HEADS * HEAD_WIDTH, HIDDEN, 1.5)
        matrix(block + "attn_v.weight", KV_HEADS * HEAD_WIDTH, HIDDEN, 1.5)
        matrix(block + "attn_output.weight", HIDDEN, HIDDEN, 1.5)
        matrix(block + "ffn_gate.weight", FEED_FORWARD, HIDDEN, 1.5)
        matrix(block + "ffn_up.weight", FEED_FORWARD, HIDDEN, 1.5)
        matrix(block + "ffn_down.weight", HIDDEN, FEED_FORWARD, 1.5)
        if architecture == "qwen2":
            vector(block + "attn_q.bias", HIDDEN, 0.0, 0.1)
            vector(block + "attn_k.bias", KV_HEADS * HEAD_WIDTH, 0.0, 0.1)
            vector(block + "attn_v.bias", KV_HEADS * HEAD_WIDTH, 0.0, 0.1)
    _finish(writer)
    return path


SHAPES = {  # (rows out, columns in) of every linear layer an adapter may touch
    "attn_q": (HIDDEN, HIDDEN),
    "attn_k": (KV_HEADS * HEAD_WIDTH, HIDDEN),
    "attn_v": (KV_HEADS * HEAD_WIDTH, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN),
    "ffn_gate": (FEED_FORWARD, HIDDEN),
    "ffn_up": (FEED_FORWARD, HIDDEN),
    "ffn_down": (HIDDEN, FEED_FORWARD),
}


def make_adapter(
    path: Path, *, architecture: str = "llama", seed: int = 1, rank: int = 4, size: float = 1.0
) -> Path:
    """Write a random LoRA adapter for `make_model`'s models, alpha 0, strong enough to be seen."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 0.0)
    for layer in range(LAYERS):
        for name, (rows, columns) in SHAPES.items():
            a = random.standard_normal((rank, columns)) / np.sqrt(columns)
            b = random.standard_normal((rows, rank)) * size / np.sqrt(rank)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", a.astype(np.float32))
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", b.astype(np.float32))
    _finish(writer)
    return path


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
