"""The measurement: every arm starts, gets warm, and then they take turns, so that a drift of the machine meets all."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from cascade_rt.errors import BackendUnavailableError, CascadeError, InputError, UsageError
from cascade_rt.measuring.benchmarking.masks import MaskComparison, compare_masks
from cascade_rt.measuring.benchmarking.statistics import Ratio, Spread, paired_ratio, spread
from cascade_rt.measuring.benchmarking.worker import Opened, OpenRunner, Run, Worker
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.volume import read_grid

NETWORK_STEPS = ("stage1", "stage2")
"""The steps in which the networks compute."""
_ORDER = ("load", "preprocess", "stage1", "crop", "stage2", "paste", "measure", "save")
"""In which steps are shown; others come behind them."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how often."""

    rounds: int = 5
    """In each, every arm segments every scan once."""
    warm_up_s: float = 3.0
    """An arm runs at least this long, and each scan once, before anything counts."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan file."""

    path: Path
    slices: int

    @classmethod
    def of(cls, path: Path, reading: ScanOptions = DEFAULT_SCAN_OPTIONS) -> "Scan":
        """Look at a file, and bring it into the memory of the system, so that no arm pays for the disk.

        Raises:
            InputError: It cannot be used.
        """
        slices = read_grid(path, reading).shape[0]
        path.read_bytes()
        return cls(path, slices)


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A run that counts."""

    round: int
    scan: Scan
    run: Run


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What was measured of one arm."""

    name: str
    opened: Opened
    first_run: Run
    """The first scan after opening, cold."""
    runs: tuple[TimedRun, ...]
    peak_memory_bytes: int
    gpu_memory_bytes: int | None
    masks: MaskComparison | None = None
    """Beside the reference; None before they are compared."""

    @property
    def seconds(self) -> list[float]:
        """Of each run that counts, in order."""
        return [each.run.seconds for each in self.runs]

    @property
    def spread(self) -> Spread:
        """Where the runs lie."""
        return spread(self.seconds)

    @property
    def slices_per_second(self) -> float:
        """Over all runs, from file to file."""
        return sum(each.scan.slices for each in self.runs) / sum(self.seconds)

    @property
    def steps(self) -> dict[str, float]:
        """Mean seconds of each step, in the order of the cascade."""
        seen = dict.fromkeys(name for each in self.runs for name in each.run.steps)
        ordered = [*(name for name in _ORDER if name in seen), *(name for name in seen if name not in _ORDER)]
        return {name: sum(each.run.steps.get(name, 0.0) for each in self.runs) / len(self.runs) for name in ordered}

    @property
    def beside_networks(self) -> list[float]:
        """Of each run, the seconds in which no network computed."""
        return [each.run.seconds - sum(each.run.steps.get(name, 0.0) for name in NETWORK_STEPS) for each in self.runs]


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that was measured."""

    scans: tuple[Scan, ...]
    arms: tuple[ArmResult, ...]
    left_out: Mapping[str, str]
    """For each arm that was not measured, why; an arm that no machine has is not in here."""
    reference: str
    """The arm whose masks the others are compared with."""
    no_reference: str = ""
    """Why it is not the one that was asked for; empty where it is."""

    def arm(self, name: str) -> ArmResult | None:
        """The result of an arm; None where it was left out."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def ratio(self, baseline: str, name: str) -> Ratio | None:
        """How many times as fast as a baseline an arm is; None where one of both was left out."""
        first, second = self.arm(baseline), self.arm(name)
        return None if first is None or second is None else paired_ratio(first.seconds, second.seconds)


@dataclass(frozen=True, slots=True)
class Reference:
    """The arm whose masks the others are compared with, whether it is timed or not."""

    name: str
    open_runner: OpenRunner


@dataclass(frozen=True, slots=True)
class Progress:
    """Called while it is measured; does nothing unless told to."""

    on_step: Callable[[str], None] = lambda _: None
    """Called with what is being done, in words."""
    on_run: Callable[[], None] = lambda: None
    """Called after each run that counts."""


def measure(
    arms: Mapping[str, OpenRunner],
    scans: Sequence[Path],
    schedule: Schedule,
    folder: Path,
    reference: Reference,
    *,
    all_must_run: bool = True,
    progress: Progress | None = None,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
) -> Measurement:
    """Measure arms on scans, file to file.

    Args:
        arms: What opens each, by its name.
        scans: The scan files.
        schedule: How long and how often.
        folder: Where masks and reports go; it stays.
        reference: What the masks are compared with. Where it cannot run, the first arm takes its place.
        all_must_run: Raise where an arm cannot run; off, it is left out with the reason.
        progress: What is told on the way.
        reading: What the user says about the scans that they do not say themselves; arms are told when they are made.

    Raises:
        InputError: A scan cannot be used.
        BackendUnavailableError: No arm runs.
        CascadeError: An arm does not run and has to.
    """
    told, looked_at = progress or Progress(), tuple(Scan.of(path, reading) for path in scans)
    with _Race(folder, looked_at, told, all_must_run) as race:
        race.start(arms, schedule)
        race.run_rounds(schedule.rounds)
        race.finish()
    if not race.results:
        raise BackendUnavailableError("no arm can run here: " + "; ".join(race.left_out.values()))
    name, why = _reference(race, reference, looked_at)
    results = tuple(_with_masks(result, race.masks(result.name), race.masks(name)) for result in race.results.values())
    return Measurement(looked_at, results, race.left_out, name, why)


class _Race:
    """Arms that are open at once and take turns; one that fails is left out, and the others go on."""

    def __init__(self, folder: Path, scans: tuple[Scan, ...], progress: Progress, all_must_run: bool) -> None:
        self.results: dict[str, ArmResult] = {}
        self.left_out: dict[str, str] = {}
        self._folder, self._scans, self._progress, self._all_must_run = folder, scans, progress, all_must_run
        self._workers: dict[str, Worker] = {}
        self._first: dict[str, Run] = {}
        self._runs: dict[str, list[TimedRun]] = {}

    def __enter__(self) -> "_Race":
        self._stack = ExitStack()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def masks(self, name: str) -> list[Path]:
        """Where the masks of an arm go, scan by scan."""
        paths = mask_paths(self._folder, name, len(self._scans))
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        return paths

    def start(self, arms: Mapping[str, OpenRunner], schedule: Schedule) -> None:
        """Open every arm and run it until it is warm."""
        for name, open_runner in arms.items():
            self._progress.on_step(f"{name}: opening")
            try:
                self._workers[name] = self._stack.enter_context(Worker(name, open_runner))
                self._progress.on_step(f"{name}: first scan, and warming up")
                self._first[name] = self._warm_up(name, schedule.warm_up_s)
            except CascadeError as error:
                self._leave_out(name, error)
            else:
                self._runs[name] = []

    def _warm_up(self, name: str, seconds: float) -> Run:
        """Run each scan once, then all again until the time is over; returns the first run."""
        start = time.perf_counter()
        pairs = list(zip(self._scans, self.masks(name), strict=True))
        first, *_ = [self._workers[name].run(scan.path, mask) for scan, mask in pairs]
        while time.perf_counter() - start < seconds:
            for scan, mask in pairs:
                self._workers[name].run(scan.path, mask)
        return first

    def run_rounds(self, rounds: int) -> None:
        """Let the arms take turns on every scan; each turn begins with another arm."""
        turn = 0
        for number in range(rounds):
            for index, scan in enumerate(self._scans):
                for name in rotated(list(self._runs), turn):
                    self._progress.on_step(f"{name}: round {number + 1} of {rounds}")
                    try:
                        run = self._workers[name].run(scan.path, self.masks(name)[index])
                    except CascadeError as error:
                        self._leave_out(name, error)
                        continue
                    self._runs[name].append(TimedRun(number, scan, run))
                    self._progress.on_run()
                turn += 1

    def finish(self) -> None:
        """Ask each process for its memory and end it."""
        for name, runs in self._runs.items():
            worker = self._workers[name]
            self.results[name] = ArmResult(
                name=name,
                opened=worker.opened,
                first_run=self._first[name],
                runs=tuple(runs),
                peak_memory_bytes=worker.peak_memory_bytes(),
                gpu_memory_bytes=worker.gpu_memory_bytes(),
            )
            worker.close()

    def _leave_out(self, name: str, error: CascadeError) -> None:
        if self._all_must_run or isinstance(error, InputError):
            raise error
        self._runs.pop(name, None)
        # A precision that a backend does not have is nothing that this machine lacks.
        if not isinstance(error, UsageError):
            self.left_out[name] = str(error)


def mask_paths(folder: Path, name: str, count: int) -> list[Path]:
    """Where the masks of an arm lie in the folder of a measurement, scan by scan."""
    own = folder / re.sub(r"[^\w.+-]", "_", name)
    return [own / f"{index}_seg.nii.gz" for index in range(count)]


def rotated(names: list[str], turn: int) -> list[str]:
    """The same names, beginning with another one each turn."""
    first = turn % len(names) if names else 0
    return names[first:] + names[:first]


def _reference(race: _Race, reference: Reference, scans: tuple[Scan, ...]) -> tuple[str, str]:
    """The arm that the masks are compared with, and why it is not the one asked for."""
    if reference.name in race.results:
        return reference.name, ""
    try:
        with Worker(reference.name, reference.open_runner) as worker:
            for scan, mask in zip(scans, race.masks(reference.name), strict=True):
                worker.run(scan.path, mask)
    except CascadeError as error:
        return next(iter(race.results)), str(error)
    return reference.name, ""


def _with_masks(result: ArmResult, masks: Sequence[Path], references: Sequence[Path]) -> ArmResult:
    return replace(result, masks=compare_masks(masks, references))
