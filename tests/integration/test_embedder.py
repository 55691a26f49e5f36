"""The converted embedder in llama.cpp against transformers' BERT, on the real MiniLM if given.

ACCLIMATE_TEST_MODELS must hold `minilm/` with model.safetensors, vocab.txt and tokenizer.json.
"""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from acclimate.adapters.embedder import changed, convert, gguf_name, wordpiece_token
from acclimate.adapters.shipped import shipped_file
from acclimate.daemon.embed import Embedder
from acclimate.store.errors import EngineError, ModelError

TEXTS = [
    "Hello world",
    "The bees were fed on Tuesday; 3 of 5 hives are strong.",
    "Grüße aus Köln — naïve café №5, 東京",
    "def f(x):\n    return x ** 2  # squared",
    "word " * 400,
    "x",
    "",
]


@pytest.fixture(scope="module")
def source(real_models: Path) -> Path:
    folder = real_models / "minilm"
    if not (folder / "model.safetensors").exists():
        pytest.skip("no minilm/model.safetensors among the test models")
    return folder


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("embedder") / "minilm.gguf"
    convert(source / "model.safetensors", source / "vocab.txt", target)
    assert [path.name for path in target.parent.iterdir()] == ["minilm.gguf"]
    return target


def test_vectors_are_those_of_transformers(source: Path, converted: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from safetensors.torch import load_file as load_tensors

    config = transformers.BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    model.load_state_dict(load_tensors(source / "model.safetensors"), strict=False)
    tokenizer = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    embedder = Embedder(converted)
    vectors = embedder.embed(TEXTS)
    embedder.close()
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            hidden = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        expected = hidden.mean(0).numpy()
        assert vector @ expected / np.linalg.norm(expected) >= 0.9999, text[:20]


def test_what_it_was_taught_is_added_to_the_weights(source: Path, tmp_path: Path) -> None:
    change = shipped_file("embedder.safetensors")
    plain, taught = (
        load_file(source / "model.safetensors"),
        changed(source / "model.safetensors", change),
    )
    moved = {name for name in plain if not np.array_equal(plain[name], taught[name])}
    assert moved
    assert all(name.startswith("encoder.layer.") for name in moved), "words mean what they meant"
    target = tmp_path / "taught.gguf"
    convert(source / "model.safetensors", source / "vocab.txt", target, change=change)
    embedder = Embedder(target)
    asked, same, other = embedder.embed(
        [
            "Which name goes on the bottles of the chilli stuff I sell?",
            "What do I call my hot sauce?",
            "Where do I keep the spare key?",
        ]
    )
    embedder.close()
    assert asked @ same > asked @ other + 0.2


def test_a_change_of_other_weights_is_refused(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "change.safetensors"
    save_file({"x.add": np.zeros(1, np.float16)}, other, {"original_sha256": "0" * 64})
    with pytest.raises(ModelError, match="not a change of"):
        convert(
            source / "model.safetensors", source / "vocab.txt", tmp_path / "out.gguf", change=other
        )
    assert not (tmp_path / "out.gguf").exists()


def test_it_can_be_called_from_many_threads_and_closed(converted: Path) -> None:
    embedder = Embedder(converted)
    alone = embedder.embed(TEXTS[:3])
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(embedder.embed(TEXTS[:3]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_allclose(result, alone, atol=1e-6)
    assert embedder.embed([]).shape == (0, 384)
    embedder.close()
    with pytest.raises(EngineError, match="closed"):
        embedder.embed(["x"])


def test_closing_ends_a_running_call_at_its_next_text(converted: Path) -> None:
    embedder = Embedder(converted)
    ends: list[str] = []

    def call() -> None:
        started.set()
        try:
            embedder.embed([f"text {n}" for n in range(50_000)])  # minutes
        except EngineError as error:
            ends.append(error.message)

    started = threading.Event()
    thread = threading.Thread(target=call)
    thread.start()
    started.wait()
    time.sleep(0.1)
    embedder.close()
    thread.join()
    assert ends == ["the embedder is closed"]
    embedder.close()


def test_a_vocabulary_of_another_model_is_refused(source: Path, tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n")
    with pytest.raises(ModelError, match=r"vocab\.txt"):
        convert(source / "model.safetensors", vocabulary, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_names_and_word_pieces() -> None:
    assert gguf_name("bert.encoder.layer.3.attention.output.LayerNorm.bias") == (
        "blk.3.attn_output_norm.bias"
    )
    assert gguf_name("encoder.layer.0.output.dense.weight") == "blk.0.ffn_down.weight"
    assert gguf_name("pooler.dense.weight") is None
    assert [wordpiece_token(t) for t in ("hello", "##ing", "[CLS]")] == ["▁hello", "ing", "[CLS]"]
    with pytest.raises(ModelError, match="unknown tensor"):
        gguf_name("decoder.weight")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        convert(tmp_path / "none", tmp_path / "vocab.txt", tmp_path / "out.gguf")
