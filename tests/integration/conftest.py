"""A fresh home and its database, for tests that need no more; whole at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.store.db import Db
from acclimate.store.files import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


@pytest.fixture
def db(home: Home) -> Iterator[Db]:
    db = Db(home.db, attached=home.attached)
    yield db
    assert db.integrity_check() == []
    db.close()
