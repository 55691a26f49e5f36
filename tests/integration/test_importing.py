"""Adapters from elsewhere on a tiny model: taken in, served, named, rolled back to, taught on."""

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
import real_daemon
from lessons import taught
from real_daemon import RealDaemon
from starlette.testclient import TestClient

from acclimate.adapters.lora import CONFIG, WEIGHTS
from acclimate.adapters.prompt import Prompt
from acclimate.adapters.snapshot import Snapshot
from acclimate.adapters.training import Training
from acclimate.daemon import exporting, importing, models, trial
from acclimate.daemon.config import Config
from acclimate.daemon.core import Core
from acclimate.daemon.engine import Engine
from acclimate.daemon.models import base_sha256
from acclimate.daemon.server import create_app
from acclimate.daemon.switch import Switch
from acclimate.store import ledger, names
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file
from acclimate.store.index import Index

HELLO = [3 + byte for byte in b"hello"]
ENDLESS = {"0": -100, "1": -100, "2": -100}


class Place:
    """A home whose base was pulled, with an engine on it, behind the app."""

    def __init__(self, home: Home, db: Db, engine: Engine, base: Path) -> None:
        self.home, self.db, self.engine = home, db, engine
        self.base = models.pull(home, str(base), lambda *_: None)
        config = Config.model_validate(
            {"models": {"base": self.base.stem}, "retrieval": {"enabled": False}}
        )
        switch = Switch(home, db, engine, base_sha256(home, self.base))
        self.core = Core(
            home,
            config,
            db,
            Index(db, home.index),
            engine=engine,
            prompt=Prompt.from_gguf(base),
            switch=switch,
        )
        self.http = TestClient(create_app(self.core, token=None, port=0))

    def take(self, path: Path, **body: Any) -> Any:
        return self.http.post("/v1/adapters", json={"path": str(path), **body})

    def refused(self, path: Path) -> str:
        """Why an import is refused, and that nothing is left of it."""
        before = sorted(self.home.adapters.iterdir()), len(ledger.adapters(self.db))
        response = self.take(path)
        assert response.status_code in (404, 409), response.text
        assert response.json()["error"]["hint"]
        assert (sorted(self.home.adapters.iterdir()), len(ledger.adapters(self.db))) == before
        return str(response.json()["error"]["message"])

    def ask(self, model: str) -> Any:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 12,
            "temperature": 0,
            "logit_bias": ENDLESS,
            "store": False,
        }
        response = self.http.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def says(self, model: str) -> str:
        return str(self.ask(model)["choices"][0]["message"]["content"])


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def place(home: Home, db: Db, engine: Engine, tiny_llama: Path) -> Place:
    return Place(home, db, engine, tiny_llama)


@pytest.fixture
def tone(tiny_adapter: Callable[..., Path]) -> Path:
    return tiny_adapter(5)


def test_a_gguf_is_served_as_the_file_itself_is(place: Place, tone: Path) -> None:
    response = place.take(tone, name="tone")
    assert response.status_code == 201, response.text
    found = response.json()
    assert (found["version"], found["parent"], found["round"]) == ("v0001", "base", None)
    assert (found["live"], found["names"], found["taught"]) == (False, ["tone"], [])
    assert found["imported"] == {
        "name": "tone",
        "format": "gguf",
        "file": tone.name,
        "sha256": sha256_file(tone),
        "scaling": 1.0,
    }
    card, folder = found["card"], place.home.adapter_dir(1)
    assert (card["rank"], card["layers"], card["base_sha256"]) == (
        4,
        [0, 1],
        sha256_file(place.base),
    )
    assert {n: sha256_file(folder / n) for n in card["files"]} == card["files"]
    assert sorted(p.name for p in folder.iterdir()) == sorted([*card["files"], "card.json"])
    assert [p.name for p in place.home.adapters.iterdir()] == ["v0001"]
    assert place.engine.live == "base"
    place.engine.load("original", tone)
    place.core.switch.load(1)
    np.testing.assert_allclose(
        place.engine.logits(HELLO, "v0001"), place.engine.logits(HELLO, "original"), atol=1e-3
    )
    assert place.says("v0001") != place.says("base")
    answer = place.ask("tone")
    assert answer["acclimate"]["adapter"] == answer["model"] == "v0001"


def test_a_peft_folder_is_served_as_torch_computes_it(
    place: Place, tmp_path: Path, loaded: Any
) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    shape = LoraConfig(
        r=3,
        lora_alpha=5,
        use_rslora=True,
        target_modules=["q_proj", "k_proj", "down_proj"],
        layers_to_transform=[1],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(copy.deepcopy(loaded), shape)
    torch.manual_seed(3)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.4)
    model.save_pretrained(str(tmp_path / "elsewhere"), save_embedding_layers=False)
    found = place.take(tmp_path / "elsewhere").json()
    assert found["version"] == "v0001" and found["imported"]["format"] == "peft"
    assert (found["card"]["rank"], found["card"]["layers"]) == (3, [1])

    def logits(torch_model: Any) -> Any:
        with torch.no_grad():
            return torch_model(input_ids=torch.tensor([HELLO])).logits[0, -1].numpy()

    place.core.switch.load(1)
    served, base = (place.engine.logits(HELLO, name) for name in ("v0001", "base"))
    np.testing.assert_allclose(served, logits(model), atol=0.02)
    assert np.abs(served - base).max() > 0.5
    # What lies in the home is a PEFT folder that peft itself loads, with the same effect.
    again = PeftModel.from_pretrained(copy.deepcopy(loaded), str(place.home.adapter_dir(1)))
    np.testing.assert_allclose(logits(again), logits(model), atol=1e-4)


def test_the_person_makes_it_live_and_it_is_exported_and_compared(
    place: Place, tone: Path, tmp_path: Path
) -> None:
    place.take(tone)
    moved = place.http.post("/v1/adapters/live", json={"version": "v0001"})
    assert moved.json()["live"] == "v0001" and place.ask("live")["model"] == "v0001"
    row = place.http.get("/v1/adapters").json()["adapters"][0]
    assert (row["version"], row["round"], row["live"]) == ("v0001", None, True)
    assert place.http.get("/v1/adapters/v0001/diff/base").json()["gained"] == []
    known = place.http.get("/v1/adapters/v0001").json()
    exporting.copy(place.home, "v0001", known, tmp_path / "out", "peft")
    assert place.take(tmp_path / "out").json()["version"] == "v0002"
    one, two = (place.home.adapter_dir(n) / "adapter.gguf" for n in (1, 2))
    assert one.read_bytes() == two.read_bytes(), "an export can be imported again"
    assert place.http.post("/v1/adapters/live", json={}).json()["live"] == "base"


# Files that are no adapter


def test_files_that_are_none_are_refused_in_words(
    place: Place, tone: Path, tmp_path: Path, tiny_llama: Path, tiny: Any
) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(tone)
    assert "is a link" in place.refused(link)
    os.mkfifo(tmp_path / "fifo.gguf")
    assert "no plain file" in place.refused(tmp_path / "fifo.gguf")
    assert "no plain file" in place.refused(Path("/dev/zero"))
    assert "there is no" in place.refused(tmp_path / "none")
    huge = tmp_path / "zeros.gguf"
    with huge.open("wb") as file:
        file.truncate(4 * 2**30)
    assert "bytes; an adapter for this base has" in place.refused(huge)
    with huge.open("wb") as file:
        file.truncate(2**20)
    assert "no GGUF file" in place.refused(huge)
    assert "type" in place.refused(tiny_llama)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tone.read_bytes()[:-100])
    assert "lies outside the file" in place.refused(cut)
    still = tiny.make_adapter(tmp_path / "still.gguf", size=0.0)
    assert "changes nothing" in place.refused(still)
    wild = tiny.make_adapter(tmp_path / "wild.gguf", size=1e30)
    assert "predicts no numbers" in place.refused(wild)
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04")
    assert "pickle" in place.refused(folder)
    assert "alone is no adapter" in place.refused(folder / "adapter_model.bin")
    (folder / CONFIG).write_text("{}")
    (folder / WEIGHTS).symlink_to(tone)
    assert "is a link" in place.refused(folder)
    assert place.take(Path("relative.gguf")).status_code == 400
    assert place.take(tone, name="v0007").json()["error"]["param"] == "name"


def test_bits_that_flip_never_harm_the_daemon(place: Place, tone: Path, tmp_path: Path) -> None:
    random, data = np.random.default_rng(3), tone.read_bytes()
    file = tmp_path / "flipped.gguf"
    for _ in range(6):
        changed = bytearray(data)
        for at in random.integers(0, 1500, 4):
            changed[at] ^= 1 << int(random.integers(8))
        file.write_bytes(changed)
        assert place.take(file).status_code in (201, 409)
    assert place.engine.alive() and place.says("base")


def test_one_of_another_base_is_refused(
    place: Place, tone: Path, tmp_path: Path, tiny: Any
) -> None:
    place.take(tone)
    other = tmp_path / "ours.gguf"
    data = (place.home.adapter_dir(1) / "adapter.gguf").read_bytes()
    sha256 = sha256_file(place.base).encode()
    assert sha256 in data
    other.write_bytes(data.replace(sha256, b"0" * 64))
    assert "another base model" in place.refused(other)


def test_a_child_that_crashes_is_told_of(
    place: Place, tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(script))
    assert "SIGSEGV" in place.refused(tone)


def test_a_disk_without_room_is_told_of(
    place: Place, tone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr(importing.shutil, "disk_usage", lambda _: Full)
    assert "no room" in place.refused(tone)


def test_one_at_a_time_and_no_number_twice(place: Place, tone: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with place.core.switch.publishing:  # as a round does that is being published
            first = pool.submit(place.take, tone, name="tone")
            wait_until(lambda: any(place.home.adapters.glob(".tmp-*/adapter.gguf")))
            second = place.take(tone)
            assert (second.status_code, second.json()["error"]["code"]) == (429, "busy")
            assert not first.done() and ledger.adapters(place.db) == []
        assert first.result().json()["version"] == "v0001"
    assert place.take(tone, name="tone").json()["error"]["code"] == "adapter_error"
    assert place.take(tone).json()["version"] == "v0002"


# Other programs' ways


def test_vllms_clients_load_by_name_ask_by_name_and_unload(
    place: Place, tone: Path, tiny_adapter: Callable[..., Path]
) -> None:
    def load(path: Path, **more: Any) -> Any:
        body = {"lora_name": "sql", "lora_path": str(path), "lora_int_id": 7, **more}
        return place.http.post("/v1/load_lora_adapter", json=body)

    done = load(tone)
    assert (done.status_code, done.text) == (
        200,
        "Success: LoRA adapter 'sql' added successfully.",
    )
    listed = {m["id"]: m for m in place.http.get("/v1/models").json()["data"]}
    assert [*listed] == ["live", "base", "v0001", "sql"]
    assert listed["sql"]["acclimate"]["adapter"] == "v0001"
    assert place.http.get("/v1/models/sql").status_code == 200
    assert place.ask("sql")["model"] == "v0001" and place.engine.adapters == ["v0001"]
    again = load(tiny_adapter(6))
    assert again.status_code == 400
    assert "The lora adapter 'sql' has already been loaded." in again.json()["error"]["message"]
    assert [a.version for a in ledger.adapters(place.db)] == [1]
    assert load(tiny_adapter(6), load_inplace=True).status_code == 200
    assert place.ask("sql")["model"] == "v0002"
    assert load(Path("/no/such"), load_inplace=True).status_code == 404
    assert load(place.base, load_inplace=True).status_code == 400
    assert names.names(place.db) == {"sql": 2}
    place.core.switch.set_live("v0001")
    gone = place.http.post("/v1/unload_lora_adapter", json={"lora_name": "sql"})
    assert (gone.status_code, gone.text) == (
        200,
        "Success: LoRA adapter 'sql' removed successfully.",
    )
    assert place.engine.adapters == ["v0001"], "the engine forgot what is not live"
    assert [a.state for a in ledger.adapters(place.db)] == ["ok", "ok"]
    assert place.ask("v0002")["model"] == "v0002", "the version stays"
    gone = place.http.post("/v1/unload_lora_adapter", json={"lora_name": "sql"})
    assert gone.status_code == 404
    assert gone.json()["error"]["message"] == "The lora adapter 'sql' cannot be found."


def test_llama_cpps_clients_see_and_set_scales(
    place: Place, tone: Path, tiny_adapter: Callable[..., Path]
) -> None:
    def set_to(*rows: dict[str, Any]) -> Any:
        return place.http.post("/lora-adapters", json=[*rows])

    for path in (tone, tiny_adapter(6)):
        place.take(path)
    assert set_to({"id": 2, "scale": 1.0}).json() == {"success": True}
    assert place.http.get("/lora-adapters").json() == [
        {"id": 1, "path": "adapters/v0001/adapter.gguf", "scale": 0.0},
        {"id": 2, "path": "adapters/v0002/adapter.gguf", "scale": 1.0},
    ]
    assert place.ask("live")["model"] == "v0002"
    for bad in (
        [{"id": 1, "scale": 1}, {"id": 2, "scale": 1}],
        [{"id": 1, "scale": 0.5}],
        [{"id": 1, "scale": 0}, {"id": 1, "scale": 1}],
        [{"id": 1, "scale": -1}],
        [{"id": -1, "scale": 1}],
        [{"id": 1}],
    ):
        assert set_to(*bad).status_code == 400, bad
    for unknown in (0, 9, 2**63 - 1):
        assert set_to({"id": unknown, "scale": 1}).status_code == 404
    assert ledger.live(place.db) == 2
    assert set_to({"id": 1, "scale": 1}, {"id": 2, "scale": 0}).json() == {"success": True}
    assert place.engine.live == "v0001"
    assert set_to().json() == {"success": True} and place.engine.live == "base"
    assert [swap.reason for swap in ledger.swaps(place.db)] == ["rollback"] * 3


# Rounds on it


def test_what_it_brought_is_not_held_against_a_round(
    tmp_path: Path, tiny_llama: Path, tiny_adapter: Callable[..., Path]
) -> None:
    sha256 = sha256_file(tiny_llama)
    for name in ("parent", "round"):
        (tmp_path / name).mkdir()
    trial.fit(tiny_adapter(5, size=0.1, rank=3), tiny_llama, sha256, tmp_path / "parent")
    limit = 0.05
    snapshot = Snapshot(
        round=1,
        seed=1,
        threads=1,
        base=tiny_llama,
        base_sha256=sha256,
        anchor_cache=tmp_path / "anchors",
        parent=tmp_path / "parent",
        parent_version=1,
        brought=None,
        training=Training(exposures=10, learning_rate=0.005),
        limits={"max_general_rise_parent": 0.7, "max_general_rise_base": limit},
        new=[taught(n, "What is my dog called?", "Rex.") for n in (1, 2)],
    )
    (tmp_path / "round" / "snapshot.json").write_text(snapshot.model_dump_json())
    command = [sys.executable, "-m", "acclimate.adapters.worker", str(tmp_path / "round")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    result = json.loads((tmp_path / "round" / "result.json").read_text())
    assert result["accepted"], result["reasons"]
    against = result["measures"]["general_base"]
    assert limit < against["after"] - against["before"] < result["card"]["brought"]


# A real daemon


@pytest.fixture
def daemon_home(tmp_path: Path, real_models: Path) -> Home:
    return real_daemon.make_home(tmp_path / "real", real_models)


def cli(home: Home, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "acclimate.daemon", "--home", str(home.root), *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("point", ["import.filled", "import.renamed", "adopt.recorded"])
def test_a_crash_leaves_nothing_half(daemon_home: Home, tone: Path, point: str) -> None:
    home = daemon_home
    killed = cli(home, "import", str(tone), "--name", "tone", ACCLIMATE_FAILPOINT=point)
    assert killed.returncode == -9
    assert len(list(home.adapters.iterdir())) >= 1
    taken = cli(home, "import", str(tone), "--name", "tone", "--json")
    assert taken.returncode == 0, taken.stderr
    assert json.loads(taken.stdout)["version"] == "v0001"
    assert [p.name for p in home.adapters.iterdir()] == ["v0001"]


def test_a_round_goes_on_from_an_imported_adapter(
    daemon_home: Home, tmp_path: Path, tiny: Any
) -> None:
    """Of another rank, on other modules, from a GGUF alone."""
    file = tmp_path / "tone.gguf"
    tiny.make_adapter(file, rank=3, size=0.02)
    reader = gguf.GGUFReader(file)
    kept = [t for t in reader.tensors if ".attn_v." in t.name or ".ffn_up." in t.name]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 6.0)
    for tensor in kept:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with RealDaemon(daemon_home.root) as daemon:
        assert daemon.ready()
        shown = cli(daemon_home, "import", str(file), "--name", "tone")
        assert shown.returncode == 0 and "acclimate rollback v0001" in shown.stdout, shown.stderr
        assert daemon.ask("tone")["model"] == "v0001"
        assert cli(daemon_home, "rollback", "v0001").returncode == 0
        daemon.add("Ada", "Ben", "Cleo", "Dora")
        ended = daemon.learn()
        assert ended["state"] == "accepted", ended
        found = daemon.call("GET", "/v1/adapters/v0002")
        assert (found["lineage"], found["live"]) == (["v0002", "v0001", "base"], True)
        assert found["card"]["rank"] == 3 and found["card"]["brought"] > 0
        assert found["card"]["modules"] == ["gate_proj", "up_proj", "down_proj", "v_proj"]
        history = cli(daemon_home, "history").stdout
        assert "imported: tone.gguf" in history and "accepted" in history
        assert "tone.gguf (gguf), rank 3" in cli(daemon_home, "show", "v0001").stdout
        # What was taught on it is forgotten: it serves again itself.
        example = found["taught"][0]["examples"][0]["id"]
        receipt = daemon.call("POST", "/v1/forget", {"target": example, "relearn": False})
        assert (receipt["retired"], receipt["live"]) == (["v0002"], "v0001")
        with pytest.raises(httpx.HTTPStatusError):
            daemon.call("POST", "/v1/adapters", {"path": str(tmp_path / "none")})
