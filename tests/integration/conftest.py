"""A fresh home and its database, whole at the end; an engine and a base on the tiny model."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acclimate.adapters.prompt import Prompt
from acclimate.daemon.engine import Engine
from acclimate.daemon.switch import Switch
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


@pytest.fixture
def db(home: Home) -> Iterator[Db]:
    db = Db(home.db, attached=home.attached)
    yield db
    assert db.integrity_check() == []
    db.close()


@pytest.fixture
def engine(tiny_llama: Path) -> Iterator[Engine]:
    engine = Engine(tiny_llama, context_tokens=512, threads=1)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def switch(home: Home, db: Db, engine: Engine, tiny_llama: Path) -> Switch:
    return Switch(home, db, engine, sha256_file(tiny_llama))


@pytest.fixture(scope="module")
def prompt(tiny_llama: Path) -> Prompt:
    return Prompt.from_gguf(tiny_llama)


@pytest.fixture(scope="module")
def loaded(tiny_llama: Path) -> Any:
    """The tiny model in torch, for a whole module: not to be changed."""
    from acclimate.adapters.base import load_base

    return load_base(tiny_llama)


@pytest.fixture
def base(loaded: Any) -> Any:
    """The same, for one test."""
    return copy.deepcopy(loaded)
