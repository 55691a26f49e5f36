import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from acclimate.daemon import tune, tuning
from acclimate.daemon.tuning import Tuning
from acclimate.store.errors import EngineError

START = Tuning(threads=2)


def test_a_setting_is_taken_only_where_it_is_clearly_faster() -> None:
    def seconds(tried: Tuning) -> tuple[float, float]:
        prompt = {64: 0.95, 128: 1.0, 256: 0.8, 512: 0.79}[tried.batch_tokens]
        return prompt, 0.5 if tried.flash_attention else 1.0

    best = tune._best(START, seconds)
    assert (best.threads, best.batch_tokens, best.flash_attention) == (2, 256, True)
    assert best.prompt_speed == pytest.approx(tune.PROMPT_TOKENS / 0.8)
    assert best.reply_speed == pytest.approx(tune.REPLY_TOKENS / 0.5)


def test_a_setting_that_llama_cpp_refuses_is_passed_over() -> None:
    def seconds(tried: Tuning) -> tuple[float, float]:
        if tried.flash_attention is not None:
            raise EngineError("no")
        return 1.0, 1.0

    assert tune._best(START, seconds).flash_attention is None


def test_no_more_is_tried_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Tuning] = []

    def seconds(one: Tuning) -> tuple[float, float]:
        tried.append(one)
        return 1.0, 1.0

    monkeypatch.setattr(tune, "SECONDS", -1.0)
    tune._best(START, seconds)
    assert tried == [START]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"threads": "2"}', '{"threads": 0}', '{"threads": 2, "batch_tokens": 10}'],
)
def test_what_cannot_be_read_is_as_if_nothing_was_measured(tmp_path: Path, text: str) -> None:
    file = tmp_path / "engine.json"
    assert tuning.read(file) is None
    file.write_text(text)
    assert tuning.read(file) is None


def test_what_was_measured_is_read_again(tmp_path: Path) -> None:
    file = tuning.file_for(tmp_path, "ab" * 32)
    file.write_text(json.dumps(asdict(Tuning(3, 64, True, 10.0, 5.0))))
    assert tuning.read(file) == Tuning(3, 64, True, 10.0, 5.0)
    assert os.sep not in file.name


def test_a_file_that_is_no_model_measures_nothing(tmp_path: Path) -> None:
    model = tmp_path / "x.gguf"
    model.write_bytes(b"GGUF")
    assert tuning.measure(model, tmp_path / "out.json") is None
    assert not (tmp_path / "out.json").exists()


def test_measuring_ends_where_somebody_asks(tmp_path: Path) -> None:
    asked = iter([True, True, False])
    assert tuning.measure(tmp_path / "x.gguf", tmp_path / "o", lambda: next(asked)) is None
    assert next(asked, None) is None
