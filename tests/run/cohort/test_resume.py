"""What an earlier run did counts only while everything that it depended on is the same."""

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import pytest

from cascade_rt.errors import OutputError
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.cases import Shard, of_shard, plan_cases
from cascade_rt.run.cohort.journal import Entry, Journal, journal_path, read_journal
from cascade_rt.run.cohort.outcome import Outcome
from cascade_rt.run.cohort.run import run_here
from cascade_rt.run.cohort.task_result import TaskResult
from tests.cohort_runs import SETTINGS, masks, names, open_fake, run, save_scan, save_scans, without_times


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return save_scans(tmp_path / "scans", 3)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_second_run_repeats_nothing(scans: Path, output: Path) -> None:
    run(scans, output)
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    summary = run(scans, output, resume=True)
    assert (summary.done, summary.skipped, summary.failures) == (0, 3, {})
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before


def other_scan(scans: Path, output: Path) -> None:
    save_scan(scans / "case01.nii.gz", seed=7)


def no_mask(scans: Path, output: Path) -> None:
    (output / "case01_seg.nii.gz").unlink()


def no_report(scans: Path, output: Path) -> None:
    (output / "case01_seg.json").unlink()


@pytest.mark.parametrize("change", [other_scan, no_mask, no_report])
def test_a_case_whose_files_have_changed_is_computed_again(
    scans: Path, output: Path, change: Callable[[Path, Path], None]
) -> None:
    run(scans, output)
    change(scans, output)
    summary = run(scans, output, resume=True)
    assert (summary.done, summary.skipped, summary.failures) == (1, 2, {})
    fresh = output.with_name("fresh")
    run(scans, fresh)
    assert without_times(output) == without_times(fresh)


@pytest.mark.parametrize("name", SETTINGS)
def test_other_settings_compute_everything_again(scans: Path, output: Path, name: str) -> None:
    run(scans, output)
    summary = run(scans, output, resume=True, settings={**SETTINGS, name: "another"})
    assert (summary.done, summary.skipped) == (3, 0)


def test_a_changed_mask_is_kept_and_reported(scans: Path, output: Path) -> None:
    run(scans, output)
    (output / "case01_seg.nii.gz").write_bytes(b"corrected by hand")
    summary = run(scans, output, resume=True)
    assert (summary.skipped, summary.failures["case01"].code) == (2, "E_CHANGED")
    assert (output / "case01_seg.nii.gz").read_bytes() == b"corrected by hand"
    assert run(scans, output, resume=True).failures["case01"].code == "E_CHANGED"


def test_a_mask_that_somebody_has_changed_is_replaced_if_asked_for(scans: Path, output: Path) -> None:
    run(scans, output)
    expected = masks(output)
    (output / "case01_seg.nii.gz").write_bytes(b"corrected by hand")
    summary = run(scans, output, resume=True, overwrite=True)
    assert (summary.done, summary.skipped, masks(output) == expected) == (1, 2, True)


def test_a_corrected_mask_is_kept_even_if_an_older_shard_was_killed(scans: Path, output: Path) -> None:
    output.mkdir()
    with Journal(output, Shard(0, 1)) as journal:
        journal.append(Entry("case01", "started"))
    run(scans, output)
    (output / "case01_seg.nii.gz").write_bytes(b"corrected by hand")
    assert run(scans, output, resume=True).failures["case01"].code == "E_CHANGED"
    assert (output / "case01_seg.nii.gz").read_bytes() == b"corrected by hand"


@pytest.mark.parametrize("resume", [True, False])
def test_a_file_that_no_journal_knows_is_kept_and_told(scans: Path, output: Path, resume: bool) -> None:
    output.mkdir()
    (output / "case01_seg.nii.gz").write_bytes(b"of somebody else")
    summary = run(scans, output, resume=resume)
    assert (summary.done, summary.failures["case01"].code) == (2, "E_EXISTS")
    assert (output / "case01_seg.nii.gz").read_bytes() == b"of somebody else"


def test_with_resume_a_scan_that_went_bad_loses_its_earlier_mask(scans: Path, output: Path) -> None:
    run(scans, output)
    (scans / "case01.nii.gz").write_bytes(b"")
    summary = run(scans, output, resume=True)
    assert list(summary.failures) == ["case01"]
    assert [name for name in names(output) if "case01" in name] == []


def test_with_overwrite_a_scan_that_went_bad_loses_its_earlier_mask(scans: Path, output: Path) -> None:
    run(scans, output)
    (scans / "case01.nii.gz").write_bytes(b"")
    run(scans, output, overwrite=True)
    assert [name for name in names(output) if "case01" in name] == []


def test_a_scan_that_went_bad_fails_in_the_next_run(scans: Path, output: Path) -> None:
    run(scans, output)
    (scans / "case01.nii.gz").write_bytes(b"")
    run(scans, output, overwrite=True)
    assert run(scans, output, resume=True).failures["case01"].code == "E_EMPTY"


@pytest.mark.parametrize("status", ["started", "interrupted"])
def test_what_a_killed_run_left_is_replaced(scans: Path, output: Path, status: str) -> None:
    output.mkdir()
    with Journal(output) as journal:
        journal.append(Entry("case01", status))  # type: ignore[arg-type]
    (output / "case01_seg.nii.gz").write_bytes(b"whole, but its report is missing")
    summary = run(scans, output, resume=True)
    assert (summary.done, summary.failures) == (3, {})


def test_a_failed_case_is_tried_again_by_the_next_run(scans: Path, output: Path) -> None:
    good = (scans / "case01.nii.gz").read_bytes()
    (scans / "case01.nii.gz").write_bytes(b"")
    assert list(run(scans, output).failures) == ["case01"]
    (scans / "case01.nii.gz").write_bytes(good)
    summary = run(scans, output, resume=True)
    assert (summary.done, summary.skipped, summary.failures) == (1, 2, {})


def test_new_scans_in_the_folder_are_computed(scans: Path, output: Path) -> None:
    run(scans, output)
    save_scan(scans / "new.nii.gz")
    summary = run(scans, output, resume=True)
    assert (summary.done, summary.skipped) == (1, 3)


def test_parts_together_are_the_whole(scans: Path, output: Path) -> None:
    save_scans(scans, 12)
    for index in range(3):
        shard = Shard(index, 3)
        run(scans, output, shard=shard, cases=of_shard(plan_cases([scans], output), shard))
    whole = output.with_name("whole")
    run(scans, whole)
    assert without_times(output) == without_times(whole)


def test_a_run_over_all_cases_continues_that_of_a_shard(scans: Path, output: Path) -> None:
    save_scans(scans, 12)
    shard = Shard(0, 3)
    part = run(scans, output, shard=shard, cases=of_shard(plan_cases([scans], output), shard))
    summary = run(scans, output, resume=True)
    assert part.done > 0
    assert (summary.skipped, summary.done) == (part.done, 12 - part.done)


def test_the_same_scans_give_the_same_bytes(scans: Path, output: Path) -> None:
    run(scans, output)
    again = output.with_name("again")
    run(scans, again)
    assert masks(output) == masks(again)


def test_the_journal_names_no_folder_of_this_machine(scans: Path, output: Path) -> None:
    (scans / "bad.nii.gz").write_bytes(b"")
    (output / "case00_seg.json").mkdir(parents=True)
    outcomes: list[Outcome] = []
    run(scans, output, outcomes=outcomes)
    assert {outcome.status for outcome in outcomes} == {"done", "failed"}
    assert str(scans.parent) not in journal_path(output).read_text()


def test_the_journal_says_why_a_case_failed(scans: Path, output: Path) -> None:
    (scans / "case01.nii.gz").write_bytes(b"")
    run(scans, output)
    entry = next(entry for entry in read_journal(journal_path(output)) if entry.status == "failed")
    assert entry.case == "case01"
    assert entry.code
    assert entry.message is not None
    assert entry.message.startswith("case01: the file is empty")


def test_the_journal_has_the_hash_of_every_result(scans: Path, output: Path) -> None:
    run(scans, output)
    lines = [json.loads(line) for line in journal_path(output).read_text().splitlines()]
    done = [line for line in lines if line["status"] == "done"]
    assert [sorted(line["outputs"]) for line in done] == [
        [f"case0{number}_seg.json", f"case0{number}_seg.nii.gz"] for number in range(3)
    ]


@pytest.mark.parametrize("name", ["case00_seg.nii.gz", "journal.jsonl"])
def test_a_result_or_journal_removed_during_a_run_is_detected(
    scans: Path, output: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    append = Journal.append

    def append_and_remove(self: Journal, entry: Entry) -> None:
        append(self, entry)
        if (entry.case, entry.status) == ("case02", "done"):
            (output / name).unlink()

    monkeypatch.setattr(Journal, "append", append_and_remove)
    with pytest.raises(OutputError, match=f"{name}.* (since removed|was removed or replaced)"):
        run(scans, output)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_result_changed_during_a_run_is_detected(
    scans: Path, output: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    append, mask = Journal.append, output / "case00_seg.nii.gz"

    def append_and_change(self: Journal, entry: Entry) -> None:
        append(self, entry)
        if (entry.case, entry.status) == ("case02", "done"):
            if exchange:
                mask.unlink()
            mask.write_bytes(b"another")

    monkeypatch.setattr(Journal, "append", append_and_change)
    with pytest.raises(OutputError, match=r"case00_seg\.nii\.gz: written by this run, but since changed") as caught:
        run(scans, output)
    assert caught.value.code == "E_CHANGED"


def test_a_result_with_another_time_and_the_same_bytes_is_not_changed(
    scans: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Journal.append

    def append_and_touch(self: Journal, entry: Entry) -> None:
        append(self, entry)
        if (entry.case, entry.status) == ("case02", "done"):
            os.utime(output / "case00_seg.nii.gz", ns=(0, 0))

    monkeypatch.setattr(Journal, "append", append_and_touch)
    assert run(scans, output).done == 3


def test_the_journal_names_the_bytes_that_were_read(scans: Path, output: Path, tmp_path: Path) -> None:
    """A scan that is replaced between the look at it and its reading is another scan for the next run, or the same."""
    newer = save_scan(tmp_path / "newer.nii.gz", seed=5).read_bytes()

    def replace_then_run(cases: Iterable[Case]) -> Generator[tuple[Case, TaskResult]]:
        def replaced() -> Iterator[Case]:
            for case in cases:
                case.scan.write_bytes(newer)
                yield case

        yield from run_here(open_fake)(replaced())

    run(scans, output, replace_then_run)
    assert run(scans, output, resume=True).skipped == 3
