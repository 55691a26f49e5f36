"""The built wheel: everything that runs, and nothing else."""

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("store", "adapters", "daemon", "systemd")
FILES = ("pyproject.toml", "README.md", "LICENSE", "config.toml")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, since a build leaves folders behind in its source."""
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("setuptools is too old to build this project without fetching another one")
    source = tmp_path_factory.mktemp("source")
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    for name in (*PACKAGES, "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored, symlinks=True)
    out = source / "out"
    command = ["build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def test_it_holds_every_module_and_every_data_file(wheel: zipfile.ZipFile) -> None:
    wanted = {
        f"acclimate/{package}/{path.relative_to(ROOT / package).as_posix()}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == wanted
    for name in (
        "acclimate/daemon/config.toml",
        "acclimate/daemon/py.typed",
        "acclimate/adapters/data/anchor_prompts.txt",
        "acclimate/systemd/acclimate.service",
        "acclimate/systemd/acclimate.plist",
    ):
        assert name in packed


def test_the_settings_are_a_file_and_not_a_link(wheel: zipfile.ZipFile) -> None:
    packed = wheel.read("acclimate/daemon/config.toml")
    assert packed == (ROOT / "config.toml").read_bytes()


def test_no_package_of_a_common_name_and_no_namespace_file(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"acclimate"}
    assert "acclimate/__init__.py" not in wheel.namelist()


def test_the_metadata_name_licence_and_command(wheel: zipfile.ZipFile) -> None:
    info = next(n.partition("/")[0] for n in wheel.namelist() if ".dist-info/" in n)
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert (
        "acclimate = acclimate.daemon.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    )
