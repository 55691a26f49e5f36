"""Fixtures that several test folders share: tiny models, made once a run, and real ones if given.

Real models are never fetched by a test: ACCLIMATE_TEST_MODELS names a folder that has them.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny as tiny_module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/tiny.py itself, for tests that make models of their own."""
    return tiny_module


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_module.make_model(tmp_path_factory.mktemp("tiny") / "llama.gguf")


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "qwen2.gguf"
    return tiny_module.make_model(path, architecture="qwen2")


@pytest.fixture(scope="session")
def tiny_adapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes (once) the random adapter with this seed for the tiny llama."""
    folder = tmp_path_factory.mktemp("adapters")

    def make(seed: int = 1, **options: Any) -> Path:
        path: Path = folder / f"{seed}-{'-'.join(f'{k}{v}' for k, v in options.items())}.gguf"
        return path if path.exists() else tiny_module.make_adapter(path, seed=seed, **options)

    return make


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The folder of real models; the test is skipped where there is none."""
    folder = os.environ.get("ACCLIMATE_TEST_MODELS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ACCLIMATE_TEST_MODELS names no folder of models")
    return Path(folder)
