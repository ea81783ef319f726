"""What `--resume` trusts: sizes and times, or with `--verify` the bytes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade_rt.common import hashing
from cascade_rt.run.cohort.cases import plan_cases
from cascade_rt.run.cohort.journal import Journal, journal_path, read_journal
from cascade_rt.run.cohort.resume_state import ResumeState
from cascade_rt.run.cohort.run import Summary, run_cases, run_here
from cascade_rt.scans import opening
from tests.cohort_runs import SETTINGS, open_fake, run, save_scan, save_scans


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return save_scans(tmp_path / "scans", 3)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that the driver of a run has hashed."""
    found: list[Path] = []
    for module, name in ((hashing, "file_sha256"), (opening, "record_with_detached")):
        monkeypatch.setattr(module, name, remembering(found, getattr(module, name)))
    return found


def remembering(found: list[Path], hash_file: Callable[[Path], object]) -> Callable[[Path], object]:
    def remember(path: Path) -> object:
        found.append(path)
        return hash_file(path)

    return remember


def resume(scans: Path, output: Path, *, verify: bool) -> Summary:
    with Journal(output) as journal:
        state = ResumeState(output, journal, SETTINGS, resume=True, overwrite=False, verify=verify)
        return run_cases(plan_cases([scans], output), run_here(open_fake), state)


def replace_with_the_same_stamp(path: Path, content: bytes) -> None:
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_run_hashes_nothing_again(scans: Path, output: Path, hashed: list[Path]) -> None:
    run(scans, output)
    assert hashed == []


def test_resuming_hashes_nothing_while_sizes_and_times_are_the_same(
    scans: Path, output: Path, hashed: list[Path]
) -> None:
    run(scans, output)
    assert resume(scans, output, verify=False).skipped == 3
    assert hashed == []


def test_verify_hashes_every_scan_and_every_result(scans: Path, output: Path, hashed: list[Path]) -> None:
    run(scans, output)
    assert resume(scans, output, verify=True).skipped == 3
    assert sorted(hashed) == sorted([*scans.iterdir(), *output.glob("*_seg*")])


def test_a_copy_with_another_time_is_recognized_by_its_bytes(scans: Path, output: Path, hashed: list[Path]) -> None:
    run(scans, output)
    os.utime(scans / "case01.nii.gz", ns=(0, 0))
    assert resume(scans, output, verify=False).skipped == 3
    assert hashed == [scans / "case01.nii.gz"]


@pytest.mark.parametrize("verify", [False, True])
def test_another_scan_of_the_same_size_and_modification_time_is_detected(
    scans: Path, output: Path, verify: bool
) -> None:
    scan = save_scan(scans / "plain.nii", seed=1)
    run(scans, output)
    replace_with_the_same_stamp(scan, save_scan(scans.parent / "other.nii", seed=7).read_bytes())
    assert resume(scans, output, verify=verify).done == 1


def test_a_mask_edited_by_hand_is_kept_whatever_its_time(scans: Path, output: Path) -> None:
    run(scans, output)
    mask = output / "case01_seg.nii.gz"
    replace_with_the_same_stamp(mask, mask.read_bytes()[::-1])
    (output / "case01_seg.json").unlink()
    summary = resume(scans, output, verify=False)
    assert summary.failures["case01"].code == "E_CHANGED"
    assert mask.exists()


def test_a_scan_replaced_while_it_is_read_has_no_stamp_in_the_journal(scans: Path, output: Path) -> None:
    newer = save_scan(scans.parent / "newer.nii.gz", seed=5)

    def replaced(_: object) -> None:
        if newer.exists():
            newer.replace(scans / "case00.nii.gz")

    run(scans, output, run_here(open_fake, on_slices=replaced))
    done = {entry.case: entry for entry in read_journal(journal_path(output)) if entry.status == "done"}
    assert done["case00"].input_stamp is None
    assert done["case01"].input_stamp is not None
