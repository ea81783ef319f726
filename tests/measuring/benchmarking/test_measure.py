"""Arms in processes of their own that take turns."""

import json
import os
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.errors import BackendUnavailableError, EngineError, InputError
from cascade_rt.measuring.benchmarking.measure import ArmResult, Measurement, Reference, Schedule, measure, rotated
from cascade_rt.measuring.benchmarking.report import as_text, measurement_lines
from cascade_rt.measuring.benchmarking.worker import OpenRunner, Worker
from tests.benchmark_runners import STEPS, CopyRunner, EndsItsProcess, FailsOnScans, TurnRunner, cannot_open

QUICK = Schedule(rounds=2, warm_up_s=0.0)


def save(path: Path, *labels: int) -> Path:
    """A file of 8 x 8 x 2 voxels that begins with some labels."""
    voxels = np.zeros((8, 8, 2), dtype=np.uint8)
    voxels.flat[: len(labels)] = labels
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return save(tmp_path / "mask.nii.gz", 1, 1, 2)


def measured(
    folder: Path, scans: int, arms: dict[str, OpenRunner], reference: Reference, *, all_must_run: bool = True
) -> Measurement:
    paths = [save(folder / f"scan{index}.nii.gz") for index in range(scans)]
    return measure(arms, paths, QUICK, folder / "masks", reference, all_must_run=all_must_run)


def test_a_worker_runs_in_another_process(mask: Path) -> None:
    with Worker("copy", partial(CopyRunner, mask)) as worker:
        assert worker.opened.description["process"] != os.getpid()


def test_a_worker_answers_with_steps_and_writes_the_mask(mask: Path, tmp_path: Path) -> None:
    with Worker("copy", partial(CopyRunner, mask)) as worker:
        assert worker.run(mask, tmp_path / "out.nii.gz").steps == STEPS
    assert (tmp_path / "out.nii.gz").read_bytes() == mask.read_bytes()


def test_the_peak_memory_of_a_worker_is_that_of_a_process(mask: Path) -> None:
    with Worker("copy", partial(CopyRunner, mask)) as worker:
        assert 1 << 20 < worker.peak_memory_bytes() < 1 << 33


def test_an_error_of_ours_keeps_its_kind_and_code() -> None:
    with pytest.raises(BackendUnavailableError, match="is not here") as caught:
        Worker("copy", cannot_open)
    assert caught.value.code == "E_GONE"


def test_a_process_that_ends_is_an_error_that_says_how(mask: Path, tmp_path: Path) -> None:
    ends = pytest.raises(EngineError, match="copy: its process ended with exit code 3")
    with Worker("copy", partial(EndsItsProcess, mask)) as worker, ends:
        worker.run(mask, tmp_path / "out.nii.gz")


def test_arms_take_turns_and_each_turn_begins_with_another(mask: Path, tmp_path: Path) -> None:
    turns = tmp_path / "turns"
    arms = {name: partial(TurnRunner, mask, name, turns) for name in "ab"}
    measured(tmp_path, 1, arms, Reference("a", arms["a"]))
    # Each warms up alone on the scan, and then come two rounds.
    assert turns.read_text().split() == ["a", "b", "a", "b", "b", "a"]


def test_every_scan_counts_once_a_round(mask: Path, tmp_path: Path) -> None:
    (arm,) = measured(tmp_path, 2, {"a": partial(CopyRunner, mask)}, Reference("a", cannot_open)).arms
    assert [(run.round, run.scan.path.name) for run in arm.runs] == [
        (number, f"scan{index}.nii.gz") for number in range(2) for index in range(2)
    ]


def test_slices_per_second_are_over_all_runs(mask: Path, tmp_path: Path) -> None:
    (arm,) = measured(tmp_path, 1, {"a": partial(CopyRunner, mask)}, Reference("a", cannot_open)).arms
    assert arm.slices_per_second == pytest.approx(4 / sum(arm.seconds))


def test_masks_are_compared_with_those_of_the_reference(mask: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other.nii.gz", 1, 1, 1)
    arms = {"a": partial(CopyRunner, mask), "b": partial(CopyRunner, other)}
    same, different = measured(tmp_path, 1, arms, Reference("a", arms["a"])).arms
    assert same.masks is not None
    assert different.masks is not None
    assert (same.masks.different, different.masks.different) == (0, 1)
    assert different.masks.dice == {"organ": 1.0, "tumor": 0.0}
    assert {name: counts.positive for name, counts in different.masks.counts.items()} == {"organ": 3, "tumor": 1}


def test_a_reference_outside_the_arms_is_run_but_not_timed(mask: Path, tmp_path: Path) -> None:
    found = measured(tmp_path, 1, {"a": partial(CopyRunner, mask)}, Reference("b", partial(CopyRunner, mask)))
    assert [arm.name for arm in found.arms] == ["a"]
    assert (found.reference, found.no_reference) == ("b", "")


def test_without_the_reference_the_first_arm_takes_its_place(mask: Path, tmp_path: Path) -> None:
    found = measured(tmp_path, 1, {"a": partial(CopyRunner, mask)}, Reference("b", cannot_open))
    assert (found.reference, found.no_reference) == ("a", "backend 'copy' is not here")


@pytest.mark.parametrize("fails", [cannot_open, partial(FailsOnScans, Path())])
def test_an_arm_that_fails_is_left_out_and_the_others_continue(fails: OpenRunner, mask: Path, tmp_path: Path) -> None:
    arms = {"a": partial(CopyRunner, mask), "b": fails}
    found = measured(tmp_path, 1, arms, Reference("a", arms["a"]), all_must_run=False)
    assert [arm.name for arm in found.arms] == ["a"]
    assert list(found.left_out) == ["b"]
    assert found.ratio("a", "b") is None


def test_an_arm_that_has_to_run_and_does_not_is_an_error(mask: Path, tmp_path: Path) -> None:
    arms = {"a": partial(CopyRunner, mask), "b": cannot_open}
    with pytest.raises(BackendUnavailableError, match="is not here"):
        measured(tmp_path, 1, arms, Reference("a", arms["a"]))


def test_if_no_arm_runs_the_error_has_all_reasons(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="no arm can run here: backend 'copy' is not here"):
        measured(tmp_path, 1, {"a": cannot_open}, Reference("a", cannot_open), all_must_run=False)


def test_a_scan_that_cannot_be_read_ends_it_before_an_arm_is_opened(mask: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        measure({"a": cannot_open}, [tmp_path / "none.nii.gz"], QUICK, tmp_path, Reference("a", cannot_open))


def test_a_turn_begins_with_another_arm() -> None:
    assert [rotated(["a", "b", "c"], turn) for turn in range(3)] == [list("abc"), list("bca"), list("cab")]


def test_every_line_is_json_and_says_what_it_was_measured_with(mask: Path, tmp_path: Path) -> None:
    arms = {"a": partial(CopyRunner, mask), "b": cannot_open}
    found = measured(tmp_path, 1, arms, Reference("a", arms["a"]), all_must_run=False)
    text = as_text(measurement_lines(found, QUICK, {"machine": "this", "bundle": {"sha256": "0"}}))
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["kind"] for line in lines] == ["arm", "left_out", "run", "run"]
    assert all((line["machine"], line["bundle"]["sha256"]) == ("this", "0") for line in lines)


def test_the_time_beside_the_networks_is_what_their_steps_leave(mask: Path, tmp_path: Path) -> None:
    arm: ArmResult
    (arm,) = measured(tmp_path, 1, {"a": partial(CopyRunner, mask)}, Reference("a", cannot_open)).arms
    assert arm.beside_networks == [seconds - STEPS["stage1"] for seconds in arm.seconds]


def test_an_arm_that_dies_after_its_last_scan_is_left_out(
    mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Worker.peak_memory_bytes

    def gone(worker: Worker) -> int:
        if worker.name == "b":
            raise EngineError("b: its process ended")
        return memory(worker)

    monkeypatch.setattr(Worker, "peak_memory_bytes", gone)
    arms = {name: partial(CopyRunner, mask) for name in "ab"}
    found = measured(tmp_path, 1, arms, Reference("a", arms["a"]), all_must_run=False)
    assert [arm.name for arm in found.arms] == ["a"]
    assert found.left_out == {"b": "b: its process ended"}
