"""Commands on a real home while no daemon runs: the same routes, in the command's own process."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from acclimate.daemon import cli
from acclimate.daemon.cli_common import Exit
from acclimate.daemon.lock import HomeLock
from acclimate.daemon.trial import try_model
from acclimate.store import ledger
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file

NOTE = "# Piano\n\nThe pitch raise for the Petrof is on Friday.\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("ACCLIMATE_DEBUG", raising=False)
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path / "home"))
    return Home.create(tmp_path / "home")


def call(*words: str, stdin: str | None = None, code: int = 0) -> Any:
    result = CliRunner().invoke(cli.app, list(words), input=stdin, prog_name="acclimate")
    assert result.exit_code == code, result.output
    return result


def data(*words: str, code: int = 0) -> Any:
    return json.loads(call(*words, "--json", code=code).stdout)


def test_sources_and_files(home: Home, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    added = call("watch", "add", str(notes), "--ignore", "old/**")
    assert "watching" in added.stdout and "acclimate run" in added.stdout
    assert data("watch", "list")["sources"][0]["ignore"] == ["old/**"]
    assert str(notes) in call("watch", "list").stdout
    call("watch", "add", str(home.root), code=1)
    call("watch", "remove", str(notes))
    call("watch", "remove", str(notes), code=1)
    assert data("watch", "list") == {"sources": []}


def test_add_search_forget(home: Home, tmp_path: Path) -> None:
    note, chat = tmp_path / "piano.md", tmp_path / "log.jsonl"
    note.write_text(NOTE)
    turn = {"instruction": "Who tunes the Petrof?", "output": "Ines does."}
    chat.write_text(json.dumps(turn) + "\nno json\n")
    assert "1 chunks" in call("add", str(note)).stdout
    said = call("add", str(chat)).stdout
    assert "1 examples" in said and "line 2:" in said
    assert "piano.md:" in call("search", "pitch raise").stdout
    status = data("status")
    assert status["examples"]["pending"] == 1 and status["daemon"]["running"] is False
    assert "log.jsonl:2" in call("status").stdout
    assert "forgotten" in call("forget", str(note)).stdout
    assert "pitch" not in call("search", "pitch raise").stdout
    call("forget", str(note), code=1)
    call("add", "-", stdin="a line that was piped in")
    assert "piped" in call("search", "piped").stdout


def test_what_was_added_is_forgotten_by_the_name_that_was_given(home: Home, tmp_path: Path) -> None:
    note, chat = tmp_path / "x.json", tmp_path / "foo.txt"
    note.write_text('{"not": "a chat"}')
    chat.write_text(json.dumps({"instruction": "Who?", "output": "Ines."}))
    assert data("add", str(note))["path"] == f"{note}.txt"
    assert data("add", str(chat), "--kind", "chat")["path"] == f"{chat}.jsonl"
    assert data("forget", str(note))["documents"] == [f"{note}.txt"]
    assert data("forget", str(chat))["examples"] == [1]
    note.write_text('{"another": "one"}')
    call("add", str(note), "--name", "letters/may.json")
    assert data("forget", "letters/may.json")["documents"] == ["letters/may.json.txt"]


def test_the_largest_file_is_a_setting(home: Home, tmp_path: Path) -> None:
    home.config.write_text("[watch]\nmax_file_bytes = 10\n")
    (tmp_path / "a.md").write_text("eleven char")
    said = call("add", str(tmp_path / "a.md"), code=1).stderr
    assert "larger than 10 bytes" in said and "max_file_bytes" in said
    call("add", "-", stdin="ten chars.")


def test_run_ends_with_2_where_starting_again_would_not_help(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no Acclimate home" in call("--home", str(tmp_path), "run", code=2).stderr
    home.config.write_text("[server]\nprot = 1\n")
    assert "hint: did you mean port?" in call("run", code=2).stderr
    home.config.unlink()

    monkeypatch.setattr("acclimate.daemon.loading.LOCK_SECONDS", 0.0)
    with HomeLock(home):
        assert "a daemon uses" in call("run", code=1).stderr


def test_logs_of_a_command_go_to_stderr(home: Home) -> None:
    command = [
        sys.executable,
        "-c",
        (
            "import structlog; from pathlib import Path;"
            "from acclimate.daemon.cli_common import Session;"
            f"Session(Path({str(home.root)!r})).home(); log = structlog.get_logger();"
            "log.info('unseen'); log.warning('seen')"
        ),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "" and '"seen"' in done.stderr and "unseen" not in done.stderr


@pytest.mark.parametrize("words", [("ask", "hm?"), ("chat",), ("learn",), ("learn", "--wait")])
def test_what_needs_the_daemon_is_4(home: Home, words: tuple[str, ...]) -> None:
    result = call(*words, code=Exit.NOT_RUNNING)
    assert result.stderr.splitlines() == [
        "acclimate: the daemon is not running",
        "hint: start it with: acclimate run",
    ]


def publish(home: Home, adapter: Path, version: int, parent: int | None, **card: Any) -> None:
    """An adapter as a round would leave it; its PEFT files are stand-ins."""
    db = Db(home.db)
    round_id = ledger.start_round(db, parent, version, [])
    folder = home.adapter_dir(version)
    folder.mkdir()
    shutil.copy(adapter, folder / "adapter.gguf")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    files = {path.name: sha256_file(path) for path in folder.iterdir()}
    measures = {"wordings": {"n": 4, "before": 2.0, "after": 0.5}}
    ledger.publish(
        db,
        round_id,
        version,
        parent,
        files["adapter.gguf"],
        1.0,
        {"files": files, **card},
        [],
        measures=measures,
    )
    db.close()


@pytest.fixture
def taught(home: Home, tiny_adapter: Callable[..., Path]) -> Home:
    publish(home, tiny_adapter(1), 1, None)
    publish(home, tiny_adapter(2), 2, 1)
    return home


def test_history_rollback_pin(taught: Home) -> None:
    text = call("history").stdout
    assert "live: v0002" in text and "2.00 → 0.50" in text
    assert "v0002 ← v0001 ← base" in call("show", "live").stdout
    assert "v0001 → v0002" in call("diff", "v0001", "live").stdout
    call("show", "v0009", code=1)
    assert "live is now v0001" in call("rollback").stdout
    assert "live is now base" in call("rollback").stdout
    call("rollback", code=1)
    assert "live is now v0002" in call("rollback", "v0002").stdout
    call("pin", "v0001")
    assert "live: v0001 (pinned)" in call("history").stdout
    call("unpin")
    assert data("history")["pinned"] is False


def test_export(taught: Home, tmp_path: Path) -> None:
    peft, gguf = tmp_path / "peft", tmp_path / "me.gguf"
    call("export", "v0001", str(peft), "--to", "peft")
    assert sorted(path.name for path in peft.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    call("export", "live", str(gguf), "--to", "gguf")
    assert sha256_file(gguf) == sha256_file(taught.adapter_dir(2) / "adapter.gguf")
    assert "exists already" in call("export", "v0001", str(gguf), "--to", "gguf", code=1).stderr
    (taught.adapter_dir(1) / "adapter_model.safetensors").write_bytes(b"changed")
    refused = call("export", "v0001", str(tmp_path / "bad"), "--to", "peft", code=1)
    assert "not the file that was published" in refused.stderr
    assert not (tmp_path / "bad").exists()
    assert not list(tmp_path.glob(".tmp-*"))
    call("export", "v0001", str(tmp_path / "no" / "folder"), "--to", "gguf", code=1)


def test_feedback_without_a_reply(home: Home) -> None:
    assert "no reply yet" in call("feedback", "good", code=1).stderr
    assert data("feedback", "list") == {"feedback": []}
    call("feedback", "edit", " ", code=2)


def test_two_commands_wait_for_each_other(home: Home) -> None:
    lock = HomeLock(home)
    lock.acquire()
    release = threading.Timer(0.6, lock.release)
    began = time.monotonic()
    release.start()
    environment = {**os.environ, "ACCLIMATE_HOME": str(home.root)}
    command = [sys.executable, "-m", "acclimate.daemon", "history", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    release.join()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["adapters"] == []
    assert time.monotonic() - began > 0.5


def test_home_of_the_option_counts_before_the_environment(home: Home, tmp_path: Path) -> None:
    other = Home.create(tmp_path / "other")
    found = json.loads(call("--home", str(other.root), "status", "--json").stdout)
    assert found["home"]["path"] == str(other.root)


def test_broken_config_names_the_key(home: Home) -> None:
    home.config.write_text("[server]\nprot = 1\n")
    said = call("status", code=1).stderr
    assert "server.prot" in said and "hint: did you mean port?" in said


def test_init_again_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = []

    def pull(home: Home, name: str, progress: Any, folder: Path | None = None) -> Path:
        progress(f"unpacking {name}", 5, 10)
        progress(f"trying {name}", 0, 1)
        pulled.append((name, folder))
        return home.models / name

    monkeypatch.setattr("acclimate.daemon.models.pull", pull)
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path / "new"))
    first = call("init", "--models", str(tmp_path))
    assert "acclimate watch add" in first.stdout and "unpacking" in first.stderr
    config = tmp_path / "new" / "config.toml"
    assert "# port = 7077" in config.read_text()
    config.write_text("[server]\nport = 7078\n")
    assert data("init")["home"] == str(tmp_path / "new")
    assert config.read_text() == "[server]\nport = 7078\n"
    assert [folder for _, folder in pulled] == [tmp_path, tmp_path, None, None]
    assert len({name for name, _ in pulled}) == 2
    call("models", "pull", code=0)
    assert len(pulled) == 6


def test_models_and_doctor_name_what_is_missing(home: Home) -> None:
    assert "not pulled" in call("models", "list").stdout
    assert "acclimate models pull" in call("models", "use", "other", code=1).stderr
    findings = data("doctor", code=1)
    assert any(f["level"] == "error" and "models pull" in f["hint"] for f in findings)
    assert "✗" in call("doctor", code=1).stdout


def test_run_without_models_says_so(home: Home) -> None:
    home.config.write_text("[server]\nport = 17099\n")
    environment = {**os.environ, "ACCLIMATE_HOME": str(home.root)}
    command = [sys.executable, "-m", "acclimate.daemon", "run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "acclimate models pull" in done.stderr and "Traceback" not in done.stderr


def test_service_dry_run(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acclimate.daemon.service._HIDDEN_BY_PRIVATE_TMP", ())
    said = call("service", "install", "--dry-run", "--no-start").stdout
    assert "would write" in said and str(home.root) in said
    assert "would remove" in call("service", "uninstall", "--dry-run").stdout
    assert data("service", "install", "--dry-run")["commands"]


def test_portable(home: Home, tmp_path: Path) -> None:
    made = call("portable", str(tmp_path / "stick"), "--no-program")
    assert str(tmp_path / "stick" / "acclimate") in made.stdout
    assert (tmp_path / "stick" / "home" / "portable").exists()
    call("portable", str(tmp_path / "stick"), "--no-program", code=1)


def test_merging_needs_the_base_it_was_learned_on(
    taught: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("export", "v0001", str(tmp_path / "merged"), "--to", "merged")
    assert "acclimate models pull" in call(*words, code=1).stderr
    monkeypatch.setattr("acclimate.daemon.models.base_sha256", lambda *_: "another")
    assert "learned on another base" in call(*words, code=1).stderr
    # The card of this adapter names no base; the child finds that the weights are none.
    monkeypatch.setattr("acclimate.daemon.models.base_sha256", lambda *_: None)
    said = call(*words, code=1).stderr
    assert "v0001 cannot be merged" in said and "hint: " in said
    assert not (tmp_path / "merged").exists()


def test_merged_is_one_file_with_the_weights_of_both(
    home: Home, tiny_llama: Path, tiny_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    call("models", "pull", str(tiny_llama))
    call("models", "use", "llama")
    publish(home, tiny_adapter(1), 1, None, base_sha256=sha256_file(tiny_llama))
    target = tmp_path / "merged.gguf"
    assert data("export", "live", str(target), "--to", "merged")["files"] == [str(target)]
    base, adapter, merged = (
        {t.name: t.data.astype("float32") for t in gguf.GGUFReader(file).tensors}
        for file in (tiny_llama, tiny_adapter(1), target)
    )
    assert merged.keys() == base.keys()
    name = "blk.1.ffn_up.weight"
    expected = base[name] + adapter[f"{name}.lora_b"] @ adapter[f"{name}.lora_a"]
    np.testing.assert_allclose(merged[name], expected, atol=0.01)
    assert try_model(target).kind == "base"  # llama.cpp loads it
    call("export", "live", str(target), "--to", "merged", code=1)
    (home.adapter_dir(1) / "adapter.gguf").write_bytes(b"changed")
    said = call("export", "v0001", str(tmp_path / "no.gguf"), "--to", "merged", code=1).stderr
    assert "not the file that was published" in said
