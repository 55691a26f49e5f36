"""What this machine is fast with is measured once, and kept."""

from pathlib import Path

from acclimate.adapters.pace import measure, measured_once
from acclimate.adapters.snapshot import Pace


def test_the_fastest_number_of_threads_is_one_of_those_there_are() -> None:
    found = measure(576, 1536, 2)
    assert found.threads in (1, 2)
    assert found.bfloat16_gain > 0


def test_it_is_measured_once_for_a_machine(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert Pace.load(folder, 2) is None
    first = measured_once(folder, 64, 128, 2)
    kept = Pace.path(folder, 2)
    kept.write_text(Pace(threads=1, bfloat16_gain=7.0).model_dump_json(), "utf-8")
    assert measured_once(folder, 64, 128, 2).bfloat16_gain == 7.0 != first.bfloat16_gain
    assert Pace.load(folder, 4) is None, "with other processors it is another machine"


def test_a_torn_file_is_measured_again(tmp_path: Path) -> None:
    Pace.path(tmp_path, 2).write_bytes(b'{"threads": ')
    assert Pace.load(tmp_path, 2) is None
    measured_once(tmp_path, 64, 128, 2)
    assert Pace.load(tmp_path, 2) is not None
