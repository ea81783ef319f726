"""Workers may crash and hang: the other cases do not notice."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from cascade_rt.errors import BackendUnavailableError, WorkerError
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.cohort.journal import journal_path, read_journal
from cascade_rt.run.cohort.outcome import Outcome
from cascade_rt.run.cohort.run import run_here
from cascade_rt.run.cohort.workers import run_in_workers
from tests.cohort_runs import (
    CRASH_ONCE,
    EXIT,
    HANG,
    KILL,
    names,
    open_fake,
    open_moody,
    run,
    save_scan,
    save_scans,
    without_times,
)

ROOT = Path(__file__).parents[3]


def open_nothing() -> Cascade:
    raise BackendUnavailableError("there is no engine here; buy one")


def open_and_die() -> Cascade:
    os._exit(5)


def open_noted(marks: Path, name: str) -> Cascade:
    """Notes which way of opening a process took."""
    (marks / f"{name} in {os.getpid()}").touch()
    return open_moody(marks)


def ways_to_open(marks: Path, *names: str) -> list[partial[Cascade]]:
    return [partial(open_noted, marks, name) for name in names]


def opened(marks: Path) -> list[str]:
    """The ways of opening that were taken, once for each process."""
    return sorted(path.name.partition(" in ")[0] for path in marks.glob("* in *"))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return save_scans(tmp_path / "scans", 3)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_workers_find_what_this_process_finds(scans: Path, output: Path) -> None:
    here = output.with_name("here")
    run(scans, here, run_here(open_fake))
    summary = run(scans, output, run_in_workers(open_fake, 2))
    assert summary.done == 3
    assert without_times(output) == without_times(here)


@pytest.mark.parametrize("mood", [EXIT, KILL])
def test_a_scan_that_crashes_its_worker_is_tried_three_times(scans: Path, output: Path, mood: int) -> None:
    save_scan(scans / "bad.nii.gz", mood=mood)
    outcomes: list[Outcome] = []
    summary = run(scans, output, run_in_workers(partial(open_moody, output), 1), outcomes=outcomes)
    assert summary.done == 3
    assert {name: error.code for name, error in summary.failures.items()} == {"bad": "E_WORKER_CRASHED"}
    assert [outcome.attempt for outcome in outcomes if outcome.status == "failed"] == [3]
    assert [name for name in names(output) if "bad" in name or name.startswith(".")] == []


def test_what_a_worker_logs_is_logged_here(scans: Path, output: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="cascade_rt")
    run(scans, output, run_in_workers(open_fake, 2))
    read = [record.args for record in caplog.records if record.name == "cascade_rt.scans.opening"]
    assert sorted(read) == [(path,) for path in sorted(scans.iterdir())]


def test_a_worker_that_crashes_once_costs_nothing(scans: Path, output: Path, tmp_path: Path) -> None:
    save_scan(scans / "moody.nii.gz", mood=CRASH_ONCE)
    summary = run(scans, output, run_in_workers(partial(open_moody, tmp_path), 1))
    assert (summary.done, summary.failures) == (4, {})
    moody = [
        (entry.status, entry.code, entry.attempt)
        for entry in read_journal(journal_path(output))
        if entry.case == "moody"
    ]
    assert moody == [
        ("started", None, 1),
        ("failed", "E_WORKER_CRASHED", 1),
        ("started", None, 2),
        ("done", None, 2),
    ]


def test_workers_take_several_ways_to_open_in_turn(scans: Path, output: Path, tmp_path: Path) -> None:
    run(scans, output, run_in_workers(ways_to_open(tmp_path, "GPU 0", "GPU 1"), 3))
    assert opened(tmp_path) == ["GPU 0", "GPU 0", "GPU 1"]


def test_a_worker_that_is_restarted_opens_in_the_same_way(scans: Path, output: Path, tmp_path: Path) -> None:
    save_scan(scans / "moody.nii.gz", mood=CRASH_ONCE)
    run(scans, output, run_in_workers(ways_to_open(tmp_path, "GPU 0", "GPU 1"), 1))
    assert opened(tmp_path) == ["GPU 0", "GPU 0"]


def test_a_scan_that_hangs_is_given_up_without_a_retry(scans: Path, output: Path) -> None:
    save_scan(scans / "bad.nii.gz", mood=HANG)
    outcomes: list[Outcome] = []
    summary = run(scans, output, run_in_workers(partial(open_moody, output), 1, timeout=3), outcomes=outcomes)
    assert summary.done == 3
    assert {name: error.code for name, error in summary.failures.items()} == {"bad": "E_TIMEOUT"}
    assert [outcome.attempt for outcome in outcomes if outcome.status == "failed"] == [1]


def test_a_bad_scan_is_not_tried_again(scans: Path, output: Path) -> None:
    (scans / "bad.nii.gz").write_bytes(b"")
    outcomes: list[Outcome] = []
    run(scans, output, run_in_workers(open_fake, 1), outcomes=outcomes)
    assert [outcome.attempt for outcome in outcomes if outcome.status == "failed"] == [1]


def test_engines_that_cannot_be_opened_end_the_run(scans: Path, output: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="there is no engine here"):
        run(scans, output, run_in_workers(open_nothing, 2))
    assert {entry.status for entry in read_journal(journal_path(output))} == {"started", "interrupted"}


def test_a_crash_while_engines_are_opened_ends_the_run(scans: Path, output: Path) -> None:
    with pytest.raises(WorkerError, match="while opening its engines"):
        run(scans, output, run_in_workers(open_and_die, 1))


def test_no_worker_is_started_if_everything_is_done(scans: Path, output: Path) -> None:
    run(scans, output)
    assert run(scans, output, run_in_workers(open_nothing, 2), resume=True).skipped == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_do_not_outlive_the_run(tmp_path: Path, number: int) -> None:
    save_scan(tmp_path / "scans" / "bad.nii.gz", mood=HANG)
    script = (
        "import sys\n"
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from tests.cohort_runs import open_moody, run\n"
        "from cascade_rt.run.cohort.workers import run_in_workers\n"
        "if __name__ == '__main__':\n"
        "    root = Path(sys.argv[1])\n"
        "    run(root / 'scans', root / 'out', run_in_workers(partial(open_moody, root), 1))\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path], env=environment, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: (tmp_path / "out" / "journal.jsonl").exists() and any(workers(process.pid)))
    started = workers(process.pid)
    process.send_signal(number)
    process.wait()
    gone, alive = psutil.wait_procs(started, timeout=60)
    assert (len(gone) > 0, alive) == (True, [])


def workers(parent: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(parent).children() if "spawn_main" in " ".join(child.cmdline())]


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_scan_may_be_given_longer_than_systems_can_wait(scans: Path, output: Path) -> None:
    assert run(scans, output, run_in_workers(open_fake, 1, timeout=1e12)).done == 3
