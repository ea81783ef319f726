"""Cohorts of tiny scans on fake engines: some compute, some crash, hang or run out of memory, as a scan tells them.

Everything here can be sent to a worker process.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cascade_rt.engines import EngineRequest, Engines
from cascade_rt.engines.base import Array
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import EngineOutOfMemoryError
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.cases import Shard, plan_cases
from cascade_rt.run.cohort.journal import Journal
from cascade_rt.run.cohort.outcome import Outcome
from cascade_rt.run.cohort.resume_state import ResumeState
from cascade_rt.run.cohort.run import Runner, Summary, run_cases, run_here
from cascade_rt.run.inference import RunOptions
from tests.cohort_files import HU, fake_cascade, save_labels

SETTINGS = {"bundle": "fake", "backend": "auto"}
EXIT, KILL, HANG, CRASH_ONCE = 2001, 2002, 2003, 2004
"""HU that tell a moody engine what to do."""


def save_scan(path: Path, seed: int = 0, mood: int | None = None) -> Path:
    """A scan of 6 slices of 8 x 8 in which the fake cascade finds pancreas and tumor; `mood` makes engines fail."""
    labels = np.zeros((6, 8, 8), dtype=np.uint8)
    labels[1:5, 2:6, 2:6] = 1
    row, col = divmod(seed % 9, 3)
    labels[2:4, 2 + row, 2 + col] = 2
    voxels = HU[labels]
    if mood is not None:
        voxels[5, 7, 7] = mood
    return save_labels(path, voxels)


def save_scans(folder: Path, count: int) -> Path:
    for number in range(count):
        save_scan(folder / f"case{number:02}.nii.gz", number)
    return folder


def open_fake() -> Cascade:
    return with_fallbacks(fake_cascade())


def with_fallbacks(cascade: Cascade) -> Cascade:
    """The same, but it tries again where memory runs out."""
    return Cascade(cascade.bundle, cascade.engines, EngineRequest())


def open_moody(marks: Path) -> Cascade:
    """Crashes or hangs where a scan says so; `marks` is a folder that remembers what has crashed once."""
    cascade = fake_cascade()
    return with_fallbacks(with_stage1(cascade, partial(_moody, cascade.engines.stage1.run, marks)))


def with_stage1(cascade: Cascade, compute: Callable[[Mapping[str, Array]], dict[str, Array]]) -> Cascade:
    return Cascade(cascade.bundle, Engines(FakeEngine("stage1", compute), cascade.engines.stage2))


def _moody(
    run: Callable[[Mapping[str, Array]], dict[str, Array]], marks: Path, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    match int(inputs["hu"].max()):
        case mood if mood == EXIT:
            os._exit(3)
        case mood if mood == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case mood if mood == HANG:
            time.sleep(3600)
        case mood if mood == CRASH_ONCE and not (marks / "crashed").exists():
            (marks / "crashed").touch()
            os._exit(3)
    return run(inputs)


def hungry(cascade: Cascade, largest: int, tried: list[int] | None = None) -> Cascade:
    """Both stages have memory for so many images at once."""

    def within(engine: Any) -> FakeEngine:
        def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
            count = len(next(iter(inputs.values())))
            if tried is not None:
                tried.append(count)
            if count > largest:
                raise EngineOutOfMemoryError(f"{engine.stage} ran out of memory; free some")
            return engine.run(inputs)

        return FakeEngine(engine.stage, compute)

    return Cascade(cascade.bundle, Engines(within(cascade.engines.stage1), within(cascade.engines.stage2)))


def run(
    scans: Path,
    output: Path,
    runner: Runner | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    shard: Shard | None = None,
    settings: Mapping[str, Any] = SETTINGS,
    outcomes: list[Outcome] | None = None,
    cases: list[Case] | None = None,
) -> Summary:
    """Run a cohort from a folder of scans into a folder of results."""
    output.mkdir(exist_ok=True)
    runner = runner or run_here(open_fake, RunOptions(overwrite=overwrite))
    with Journal(output, shard) as journal:
        state = ResumeState(output, journal, settings, resume=resume, overwrite=overwrite)
        keep = [] if outcomes is None else outcomes
        planned = plan_cases([scans], output) if cases is None else cases
        return run_cases(planned, runner, state, on_outcome=keep.append)


def masks(output: Path) -> dict[str, bytes]:
    """The bytes of all masks."""
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in sorted(output.rglob("*_seg.nii.gz"))}


def names(output: Path) -> list[str]:
    """All files, hidden ones too."""
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())


def without_times(output: Path) -> dict[str, Any]:
    """All results, but for what differs from run to run: times in reports and tables, and the bytes of the journal."""
    found: dict[str, Any] = {}
    for name in names(output):
        if name.endswith(".json"):
            report = json.loads((output / name).read_text())
            found[name] = {key: value for key, value in report.items() if key not in {"timings_s", "wall_s"}}
        elif name.startswith("results"):
            found[name] = [line.rpartition(",")[0] for line in (output / name).read_text().splitlines()]
        elif not name.startswith("journal"):
            found[name] = (output / name).read_bytes()
    return found


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """A file with other content inside."""
    before = path.read_bytes()
    path.write_bytes(content)
    yield
    path.write_bytes(before)
