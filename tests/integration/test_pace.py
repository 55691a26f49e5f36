"""What this machine is fast with is measured once, at rest, and kept."""

from pathlib import Path

import pytest

from acclimate.adapters import pace
from acclimate.adapters.pace import measure, measured_once, settled
from acclimate.adapters.snapshot import Pace, Snapshot

SIZES = (64, 128, 2)


@pytest.fixture(autouse=True)
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "BUSY_PERCENT", 100.0)  # other tests may run beside these


def test_the_fastest_number_of_threads_is_one_of_those_there_are() -> None:
    found = measure(576, 1536, 2)
    assert found.threads in (1, 2)
    assert found.bfloat16_gain > 0


def test_it_is_measured_once_for_a_machine(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert Pace.load(folder, 2) is None
    measured_once(folder, *SIZES)
    assert Pace.load(folder, 2) is not None
    other = Pace(threads=1, bfloat16_gain=7.0)
    Pace.path(folder, 2).write_text(other.model_dump_json(), "utf-8")
    measured_once(folder, *SIZES)
    assert Pace.load(folder, 2) == other
    assert Pace.load(folder, 4) is None, "with other processors it is another machine"


def test_a_torn_file_is_measured_again(tmp_path: Path) -> None:
    Pace.path(tmp_path, 2).write_bytes(b'{"threads": ')
    assert Pace.load(tmp_path, 2) is None
    measured_once(tmp_path, *SIZES)
    assert Pace.load(tmp_path, 2) is not None


def test_a_busy_machine_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "BUSY_PERCENT", -1.0)
    measured_once(tmp_path, *SIZES)
    assert Pace.load(tmp_path, 2) is None


def test_a_first_round_trains_in_what_its_worker_finds(tmp_path: Path, tiny_llama: Path) -> None:
    def asked(**more: object) -> Snapshot:
        about = {"round": 1, "seed": 1, "threads": 2, "base": tiny_llama, "base_sha256": ""}
        return Snapshot(**about, anchor_cache=tmp_path, new=[], **more)  # type: ignore[arg-type]

    settled(asked(), 2)
    assert Pace.load(tmp_path, 2) is not None, "measured with the base's own sizes"
    found = Pace(threads=1, bfloat16_gain=7.0)
    Pace.path(tmp_path, 2).write_text(found.model_dump_json(), "utf-8")
    assert settled(asked(by_pace=True), 2).precision == "bfloat16"
    assert settled(asked(), 2).precision == "float32", "what was asked for stays"
    assert settled(asked(by_pace=True), 2).key() == asked(precision="bfloat16").key()
