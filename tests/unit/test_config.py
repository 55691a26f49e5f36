"""config.toml: the shipped file is the defaults, and every mistake names file, key and remedy."""

import itertools
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from acclimate.daemon import config
from acclimate.daemon.config import Config, EngineConfig
from acclimate.store.errors import ConfigError
from acclimate.store.files import Home

TOP_LEVEL = Path(__file__).parents[2] / "config.toml"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


def mistake(home: Home, text: str | bytes) -> ConfigError:
    home.config.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(home)
    assert str(home.config) in caught.value.message
    assert caught.value.hint
    return caught.value


def test_the_shipped_file_is_the_defaults_and_names_every_setting() -> None:
    assert config.load_file(TOP_LEVEL) == Config()
    written = tomllib.loads(TOP_LEVEL.read_text())
    defaults = Config().model_dump(mode="json")
    assert {name: set(keys) for name, keys in written.items()} == {
        name: set(keys) for name, keys in defaults.items()
    }
    assert config.shipped() == TOP_LEVEL.read_text()


def test_every_shipped_setting_has_a_comment_above_its_group() -> None:
    lines = TOP_LEVEL.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        assert not (line[:1].isalpha() and before.startswith("[")), line


def test_a_new_homes_file_sets_nothing_and_shows_everything(home: Home) -> None:
    text = config.template()
    assert tomllib.loads(text).keys() == tomllib.loads(config.shipped()).keys()
    assert not any(tomllib.loads(text).values())
    assert "# port = 7077" in text.splitlines()
    home.config.write_text(text)
    assert config.load(home) == Config()


def test_no_file_means_the_defaults(home: Home) -> None:
    assert config.load(home) == Config()


def test_a_part_of_the_settings(home: Home) -> None:
    home.config.write_text('[server]\nport = 8080\n[watch]\nignore = ["*.bak"]\n')
    loaded = config.load(home)
    assert loaded.server.port == 8080
    assert loaded.watch.ignore == ("*.bak",)
    assert loaded.engine == EngineConfig()


def test_an_integer_is_fine_where_seconds_are_meant(home: Home) -> None:
    home.config.write_text("[watch]\nsettle_seconds = 2\n")
    assert config.load(home).watch.settle_seconds == 2.0


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("[server]\nprot = 1\n", "server.prot", "did you mean port?"),
        ("[sever]\nport = 1\n", "sever", "did you mean server?"),
        ("[server]\nhost = '0.0.0.0'\n", "server.host", "remove it; there are: port"),
        ("[server]\nport = 0\n", "server.port", "the default is 7077"),
        ("[server]\nport = 70000\n", "server.port", "the default is 7077"),
        ("[server]\nport = '7077'\n", "server.port", "the default is 7077"),
        ("[server]\nport = true\n", "server.port", "the default is 7077"),
        ("[server]\nport = 1979-05-27\n", "server.port", "the default is 7077"),
        ("[engine]\nsequences = 2.5\n", "engine.sequences", "the default is 4"),
        ("[watch]\nsettle_seconds = nan\n", "watch.settle_seconds", "the default is 1.0"),
        ("[watch]\nignore = '*.bak'\n", "watch.ignore", "the default is ["),
        ("[watch]\nignore = ['*.bak', 3]\n", "watch.ignore.1", "the default is ["),
        ("[models]\nbase = '../../etc/passwd'\n", "models.base", '"smollm2-135m-instruct"'),
        ("[log]\nlevel = 'loud'\n", "log.level", 'the default is "info"'),
        ("server = 7077\n", "server", "write it as a section: [server]"),
    ],
)
def test_a_mistake_names_its_key_and_the_remedy(
    home: Home, text: str, key: str, remedy: str
) -> None:
    error = mistake(home, text)
    assert f": {key}: " in error.message
    assert remedy in error.hint


def test_all_mistakes_are_listed(home: Home) -> None:
    error = mistake(home, "[server]\nport = 0\n[log]\nlevel = 3\n")
    assert "server.port" in error.message
    assert "log.level" in error.message


@pytest.mark.parametrize(
    "text", ["[server\n", "port == 3", b"\xff\xfe\x00", "x = " + "[" * 5000, "a = 1\na = 2\n"]
)
def test_what_is_not_toml(home: Home, text: str | bytes) -> None:
    assert "is not valid TOML" in mistake(home, text).message


def test_a_file_that_is_no_settings_file(home: Home) -> None:
    assert "larger" in mistake(home, b"#" * (config.MAX_CONFIG_BYTES + 1)).message
    home.config.unlink()
    home.config.mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(home)


def test_setting_a_value_keeps_the_rest(home: Home) -> None:
    home.config.write_text("# mine\n[server]\nport = 8080 # why\n")
    changed = config.set_value(home, "models", "base", "other")
    assert changed.models.base == "other"
    assert changed.server.port == 8080
    assert config.load(home) == changed
    assert home.config.read_text().startswith("# mine\n[server]\nport = 8080 # why\n")


def test_setting_a_value_in_a_home_without_a_file(home: Home) -> None:
    config.set_value(home, "server", "port", 8081)
    assert config.load(home).server.port == 8081
    assert "# context_tokens = 2048" in home.config.read_text()


def test_a_wrong_value_is_not_written(home: Home) -> None:
    home.config.write_text("[server]\nport = 8080\n")
    for section, key, value in [("server", "port", 0), ("server", "x", 1), ("x", "y", 1)]:
        with pytest.raises(ConfigError):
            config.set_value(home, section, key, value)
    assert home.config.read_text() == "[server]\nport = 8080\n"


def test_engine_arguments_leave_the_threads_to_the_engine() -> None:
    assert EngineConfig().arguments()["threads"] is None
    assert EngineConfig(threads=3).arguments()["threads"] == 3


scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
names = st.sampled_from(["server", "engine", "watch", "port", "threads", "ignore"]) | st.text()


@hypothesis_settings(deadline=None)
@given(st.dictionaries(names, scalars | st.lists(scalars) | st.dictionaries(names, scalars)))
def test_any_toml_is_settings_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(tomlkit.dumps(settings))
    try:
        config.load_file(path)
    except ConfigError as error:
        assert str(path) in error.message
