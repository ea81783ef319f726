"""Runs of a cohort that are killed: a process that has loaded everything forks one for each run, which is fast.

    python killed_runs.py ROOT SEED KILLS

ROOT/scans is segmented into ROOT/out by the command line, with --resume, and killed after a random time, again and
again; after each kill what is there is looked at. When all is done it begins anew. Prints how many runs were killed.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import cascade_rt.run.cascade
from cascade_rt.run.cohort.journal import journal_path, read_journal
from cascade_rt_cli.main import main
from tests.cohort_runs import masks, open_fake


def segment(root: Path, output: str, *options: str) -> int:
    """Run the command line in this process, with fake engines, and return its exit code."""
    cascade_rt.run.cascade.open_cascade = lambda *_, **__: open_fake()
    try:
        main(["infer", str(root / "scans"), "-o", str(root / output), *options], prog_name="cascade-rt")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def forked(root: Path, output: str) -> int:
    """Start a run and return its process."""
    child = os.fork()
    if child == 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os._exit(segment(root, output, "--resume"))
    return child


def look_at(root: Path, expected: dict[str, bytes]) -> None:
    """A mask is there whole or not at all, and what the journal calls done is there."""
    for name, mask in masks(root / "out").items():
        assert mask == expected[name], f"{name} is not whole"
    if journal_path(root / "out").exists():
        last = {entry.case: entry.status for entry in read_journal(journal_path(root / "out"))}
        for case in (case for case, status in last.items() if status == "done"):
            assert f"{case}_seg.nii.gz" in masks(root / "out")
            json.loads((root / "out" / f"{case}_seg.json").read_text())


def kill_again_and_again(root: Path, seed: int, kills: int) -> None:
    """Kill runs at random moments until as many were killed as asked for, and complete the last one."""
    begin = time.monotonic()
    os.waitpid(forked(root, "undisturbed"), 0)
    duration = time.monotonic() - begin
    expected, moments, killed = masks(root / "undisturbed"), random.Random(seed), 0
    while killed < kills:
        child = forked(root, "out")
        time.sleep(moments.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        look_at(root, expected)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            shutil.rmtree(root / "out")
    _, status = os.waitpid(forked(root, "out"), 0)
    sys.stdout.write(f"{killed} killed, then {os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    kill_again_and_again(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
