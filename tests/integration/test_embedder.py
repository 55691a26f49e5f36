"""The converted embedder in llama.cpp against transformers' BERT, on the real MiniLM if given.

ACCLIMATE_TEST_MODELS must hold `minilm/` with model.safetensors, vocab.txt and tokenizer.json.
"""

import threading
from pathlib import Path

import numpy as np
import pytest

from acclimate.adapters.embedder import convert, gguf_name, wordpiece_token
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
    from safetensors.torch import load_file

    config = transformers.BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    model.load_state_dict(load_file(source / "model.safetensors"), strict=False)
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
