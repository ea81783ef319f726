"""Whichever call fails: results are whole or not there, nothing temporary is left, and a resumed run completes them."""

import itertools
import json
from pathlib import Path

import pytest

from cascade_rt.errors import CascadeError
from cascade_rt.run.cohort.journal import journal_path, read_journal
from tests.cohort_runs import masks, names, run, save_scans, without_times
from tests.faults.failing_calls import failing

FEWEST_CALLS = {"read": 2, "write": 4, "fsync": 8, "replace": 4}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_scans(tmp_path_factory.mktemp("faults") / "scans", 2)


@pytest.fixture(scope="module")
def undisturbed(scans: Path) -> Path:
    output = scans.parent / "undisturbed"
    run(scans, output)
    return output


def check_promises(output: Path, expected: dict[str, bytes]) -> None:
    for name, mask in masks(output).items():
        assert mask == expected[name], f"{name} is not whole"
    for name in names(output):
        assert not name.endswith(".tmp"), name
        if name.endswith(".json"):
            json.loads((output / name).read_text())
    journal = journal_path(output)
    last = {entry.case: entry.status for entry in read_journal(journal)} if journal.exists() else {}
    for case in (case for case, status in last.items() if status == "done"):
        assert f"{case}_seg.nii.gz" in masks(output)


@pytest.mark.parametrize("kind", FEWEST_CALLS)
def test_the_nth_failing_call_leaves_whole_results_or_none(
    kind: str, scans: Path, undisturbed: Path, tmp_path: Path
) -> None:
    expected = masks(undisturbed)
    for at in itertools.count(1):
        output = tmp_path / str(at)
        with failing(kind, at) as fault:
            try:
                summary = run(scans, output)
            except CascadeError:
                summary = None
        check_promises(output, expected)
        if not fault.fired:
            break
        assert summary is None or not summary.failures or set(summary.failures) < {"case00", "case01"}
        run(scans, output, resume=True)
        assert without_times(output) == without_times(undisturbed)
    assert summary is not None
    assert summary.done == len(expected)
    assert at > FEWEST_CALLS[kind], "calls that failed, one after the other"
