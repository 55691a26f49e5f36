"""The settings of a home: its config.toml over the defaults, checked as a whole.

Knows none of the code that obeys them, so that a start can read them first.
"""

import difflib
import json
import tomllib
from datetime import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from acclimate.adapters.probation import ProbationConfig
from acclimate.adapters.thermostat import BUDGET
from acclimate.adapters.training import Training
from acclimate.store.balance import Caps
from acclimate.store.errors import ConfigError
from acclimate.store.extract import MAX_FILE_BYTES
from acclimate.store.files import Home, atomic_write
from acclimate.store.walk import DEFAULT_IGNORE, check_patterns

MAX_CONFIG_BYTES = 1_000_000


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerConfig(_Section):
    """`[server]`. The address is always loopback."""

    port: int = Field(default=7077, ge=1, le=65535)


class EngineConfig(_Section):
    """`[engine]`: what `Engine` is made with."""

    context_tokens: int = Field(default=2048, ge=256, le=1_048_576)
    sequences: int = Field(default=4, ge=1, le=64)
    threads: int = Field(default=0, ge=0, le=512)
    max_contexts: int = Field(default=3, ge=1, le=64)
    idle_context_seconds: float = Field(default=60.0, ge=0)
    idle_unload_seconds: float = Field(default=1800.0, ge=0)
    gpu_layers: Literal["auto"] | Annotated[int, Field(ge=0, le=10_000)] = "auto"
    queue_limit: int = Field(default=64, ge=1, le=10_000)
    prompt_lookup: bool = True

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `Engine`, where no number of threads means: choose."""
        return {**self.model_dump(), "threads": self.threads or None}


class ModelsConfig(_Section):
    """`[models]`: names as `acclimate models list` prints them."""

    base: str = Field(default="smollm2-135m-instruct", pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    embedder: str = Field(default="all-minilm-l6-v2", pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")


class ScopeConfig(_Section):
    """`[scope]`."""

    enabled: bool = True
    cues: bool = True


class RetrievalConfig(_Section):
    """`[retrieval]`.

    With all-MiniLM-L6-v2 the best passage for a question that the notes answer has a similarity
    of 0.4 to 0.8, and for one about the world at large of 0.2 to 0.4.
    """

    enabled: bool = True
    passages: int = Field(default=3, ge=1, le=50)
    max_chars: int = Field(default=1500, ge=100, le=200_000)
    min_similarity: float = Field(default=0.33, ge=-1, le=1)
    min_relative: float = Field(default=0.9, ge=0, le=1)
    min_words: float = Field(default=0.5, ge=0, le=1)
    reader: Literal["auto", "on", "off"] = "auto"
    reader_max_billion_parameters: float = Field(default=1.0, ge=0, le=1000)

    def wants_reader(self, parameters: int) -> bool:
        """Whether answers are to be looked for in passages, for a base with so many parameters."""
        if self.reader == "auto":
            return parameters < self.reader_max_billion_parameters * 1e9
        return self.reader == "on"


class WatchConfig(_Section):
    """`[watch]`."""

    settle_seconds: float = Field(default=1.0, ge=0.05, le=600)
    scan_interval_seconds: float = Field(default=900.0, ge=1)
    max_file_bytes: int = Field(default=MAX_FILE_BYTES, ge=1, le=100_000_000)
    ignore: tuple[str, ...] = DEFAULT_IGNORE

    @field_validator("ignore")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        check_patterns(patterns)
        return patterns


class StudyConfig(_Section):
    """`[study]`."""

    by_model: Literal["auto", "on", "off"] = "auto"
    min_billion_parameters: float = Field(default=1.0, ge=0, le=1000)

    def wants(self, parameters: int) -> bool:
        """Whether a base with so many parameters is to write questions."""
        if self.by_model == "auto":
            return parameters >= self.min_billion_parameters * 1e9
        return self.by_model == "on"


class LearnConfig(_Section):
    """`[learn]`."""

    max_new: int = Field(default=200, ge=1, le=10_000)
    replay: int = Field(default=192, ge=0, le=10_000)
    max_from_notes: int = Field(default=24, ge=0, le=10_000)
    max_source_share: float = Field(default=0.5, gt=0, le=1)
    max_alike_per_round: int = Field(default=4, ge=1, le=10_000)
    max_alike: int = Field(default=16, ge=1, le=10_000)
    threads: int = Field(default=0, ge=0, le=256)
    stall_seconds: float = Field(default=900.0, ge=10)
    resume_after_seconds: float = Field(default=2.0, ge=0)
    drift: float = Field(default=BUDGET, gt=0, le=1)
    base_precision: Literal["auto", "float32", "bfloat16", "nf4"] = "auto"
    rank: int = Field(default=8, ge=1, le=256)
    top_layers: float = Field(default=0.0, ge=0, le=1)
    exposures: int = Field(default=Training().exposures, ge=1, le=1000)
    learning_rate: float = Field(default=Training().learning_rate, gt=0, le=1)

    def caps(self) -> Caps:
        """What one round takes of one source, and of examples that are alike."""
        return Caps(
            self.max_source_share, self.max_alike_per_round, self.max_alike, self.max_from_notes
        )


class ScheduleConfig(_Section):
    """`[schedule]`."""

    enabled: bool = True
    every_minutes: float = Field(default=60.0, gt=0, le=60 * 24 * 365)
    cron: str = ""
    min_examples: int = Field(default=16, ge=1)
    on_battery: bool = False
    max_cpu_percent: float = Field(default=60.0, gt=0, le=100)
    idle_seconds: float = Field(default=60.0, ge=0)
    quiet_hours: str = ""

    @field_validator("quiet_hours")
    @classmethod
    def _quiet(cls, value: str) -> str:
        if value:
            start, dash, end = value.partition("-")
            if not dash:
                raise ValueError("write quiet hours like 22:00-07:00")
            clock(start), clock(end)
        return value

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        if value:
            from apscheduler.triggers.cron import CronTrigger

            CronTrigger.from_crontab(value)  # raises ValueError
        return value


class LogConfig(_Section):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Section):
    """All settings. The shipped config.toml says what each one does."""

    server: ServerConfig = ServerConfig()
    models: ModelsConfig = ModelsConfig()
    engine: EngineConfig = EngineConfig()
    scope: ScopeConfig = ScopeConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    watch: WatchConfig = WatchConfig()
    study: StudyConfig = StudyConfig()
    learn: LearnConfig = LearnConfig()
    probation: ProbationConfig = ProbationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    log: LogConfig = LogConfig()


def clock(text: str) -> time:
    """A time of day like "22:00". Raises ValueError."""
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time of day like 22:00") from None


def load(home: Home) -> Config:
    """The home's settings; the defaults where it has no config.toml. Raises ConfigError."""
    return load_file(home.config) if home.config.exists() else Config()


def load_file(path: Path) -> Config:
    """Read one file. Raises a ConfigError that names the file, the key and what to do."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes", "is it the file?")
        return _parse(path.read_bytes(), path)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}", "check the file's mode") from e


def shipped() -> str:
    """The text of the config.toml that comes with the program: every setting with its default."""
    return files("acclimate.daemon").joinpath("config.toml").read_text(encoding="utf-8")


def template() -> str:
    """The same with every setting commented out, for a new home: later defaults then reach it."""
    lines = []
    for line in shipped().splitlines():
        is_setting = line.strip() and not line.startswith(("#", "["))
        lines.append(f"# {line}" if is_setting else line)
    return "\n".join(lines) + "\n"


def set_value(home: Home, section: str, key: str, value: str | int | float | bool) -> Config:
    """Change one setting in the home's file, keep all else in it; the settings as they are then.

    Raises ConfigError, and then the file is as it was.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    load(home)  # a file with another mistake is not touched
    text = home.config.read_text(encoding="utf-8") if home.config.exists() else template()
    try:
        document = tomlkit.parse(text)
        table = document.setdefault(section, tomlkit.table())
        table[key] = value
        data = tomlkit.dumps(document).encode()
    except (TOMLKitError, TypeError) as e:
        raise ConfigError(f"{home.config}: {e}", "mend the file") from e
    config = _parse(data, home.config)
    try:
        atomic_write(home.config, data)
    except OSError as e:
        raise ConfigError(f"cannot write {home.config}: {e.strerror}", "is it writable?") from e
    return config


def _parse(data: bytes, path: Path) -> Config:
    try:
        settings = tomllib.loads(data.decode("utf-8-sig"))
        # As JSON, so that strict checks take an array for a tuple but no "7077" for 7077.
        return Config.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as e:
        raise _explain(e, path) from None
    except (ValueError, RecursionError) as e:  # not UTF-8, not TOML, nested without end
        raise ConfigError(f"{path} is not valid TOML: {e}", "mend or delete it") from e


def _explain(error: ValidationError, path: Path) -> ConfigError:
    """One error that lists every setting that is wrong; the hint is for the first."""
    details = error.errors(include_url=False, include_context=False)
    problems = []
    for detail in details:
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            problems.append(f"{key}: there is no such setting")
        else:
            problem = detail["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {problem[:1].lower()}{problem[1:]}")
    location = [str(part) for part in details[0]["loc"]]
    hint = _remedy(location, unknown=details[0]["type"] == "extra_forbidden")
    return ConfigError(f"{path}: {'; '.join(problems)}", hint)


def _remedy(location: list[str], *, unknown: bool) -> str:
    """What to do about one setting that is unknown or has a wrong value."""
    defaults = Config().model_dump(mode="json")
    section = defaults.get(location[0])
    if unknown:
        known = list(section) if isinstance(section, dict) and len(location) > 1 else list(defaults)
        near = difflib.get_close_matches(location[-1], known, 1)
        return f"did you mean {near[0]}?" if near else f"remove it; there are: {', '.join(known)}"
    if isinstance(section, dict) and len(location) > 1 and location[1] in section:
        return f"the default is {json.dumps(section[location[1]])}; remove the line to have it"
    return f"write it as a section: [{location[0]}]"
