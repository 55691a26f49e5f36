"""The token is private wherever it is kept."""

import os
import stat
from pathlib import Path

import pytest

from acclimate.daemon import token as token_module
from acclimate.daemon.token import host_token_path, load_or_create_token
from acclimate.store.errors import Detached, HomeError
from acclimate.store.files import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return Home.create(tmp_path / "home")


def no_modes_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exFAT does: chmod succeeds, stat goes on to say 0777."""
    private = token_module._private

    def pretend(fd: int) -> bool:
        return private(fd) and not Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(folder)

    monkeypatch.setattr(token_module, "_private", pretend)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_once_and_private_whatever_the_umask(home: Home) -> None:
    old = os.umask(0)
    try:
        token = load_or_create_token(home)
    finally:
        os.umask(old)
    assert len(token) >= 43
    assert home.token.read_text().strip() == token
    assert mode(home.token) == 0o600
    assert load_or_create_token(home) == token
    assert [p.name for p in home.root.iterdir() if "token" in p.name] == ["token"]


def test_a_mode_that_was_opened_up_is_closed_again(home: Home) -> None:
    token = load_or_create_token(home)
    home.token.chmod(0o644)
    assert load_or_create_token(home) == token
    assert mode(home.token) == 0o600


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_without_modes_it_stays_on_the_host(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    exposed = load_or_create_token(home)
    no_modes_in(home.root, monkeypatch)
    token = load_or_create_token(home)
    assert token != exposed  # everybody could have read that one
    assert not home.token.exists()
    assert host_token_path(home).read_text().strip() == token
    assert mode(host_token_path(home)) == 0o600
    assert mode(host_token_path(home).parent) == 0o700
    assert load_or_create_token(home) == token


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_private_place_at_all_is_an_error(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_modes_in(tmp_path, monkeypatch)
    with pytest.raises(HomeError, match="no place for the token"):
        load_or_create_token(home)


@pytest.mark.parametrize("content", ["", "short", "has spaces in it, which no token of ours has!"])
def test_a_damaged_token_is_an_error_and_not_an_open_door(home: Home, content: str) -> None:
    home.token.write_text(content)
    with pytest.raises(HomeError, match="does not hold a token"):
        load_or_create_token(home)


def test_a_link_is_not_followed(home: Home, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x" * 43)
    home.token.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HomeError, match="cannot read"):
        load_or_create_token(home)


def test_nothing_is_made_where_the_home_is_gone(home: Home) -> None:
    home.marker.unlink()
    with pytest.raises(Detached):
        load_or_create_token(home)
    assert not home.token.exists()
