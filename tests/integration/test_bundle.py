"""The list of files that the running program consists of."""

from pathlib import Path

import pytest

from acclimate.daemon.bundle import PACKAGES, program_files


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return program_files()


def test_has_what_runs(files: dict[str, Path]) -> None:
    names = files.keys()
    assert "bin/python" in names
    for module in ("os.py", "asyncio/__init__.py", "encodings/utf_8.py"):
        assert any(name.startswith("lib") and name.endswith(f"/{module}") for name in names)
    for package in ("llama_cpp", "torch", "faiss", "sqlite_utils", "typer"):
        assert f"site-packages/{package}/__init__.py" in names
    for package in PACKAGES:
        assert f"site-packages/acclimate/{package}/__init__.py" in names
    assert "site-packages/acclimate/systemd/acclimate.service" in names


def test_leaves_out_what_only_builds_or_tests(files: dict[str, Path]) -> None:
    for name in files:
        parts = name.split("/")
        assert "__pycache__" not in parts
        assert not name.endswith((".pyc", ".pth", ".a", ".h"))
        assert not parts[1].startswith(("mypy", "pytest", "hypothesis", "__editable__"))
        assert "idlelib" not in parts
        assert parts[-1] != "direct_url.json" or not parts[1].startswith("acclimate")


def test_fits_file_systems_without_case_and_links(files: dict[str, Path]) -> None:
    assert len({name.lower() for name in files}) == len(files)
    assert not [name for name in files if set(name) & set('\\:*?"<>|')]
    assert all(path.is_file() for path in files.values())
