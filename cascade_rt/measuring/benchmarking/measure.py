"""The measurement: all arms start and warm up, then take turns, so that drift of the machine affects all of them."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from cascade_rt.common.comparison import Agreement, compare
from cascade_rt.common.labels import LOWEST_LABEL
from cascade_rt.errors import BackendUnavailableError, CascadeError, InputError, UsageError
from cascade_rt.measuring.benchmarking.statistics import Ratio, Spread, paired_ratio, spread
from cascade_rt.measuring.benchmarking.worker import Opened, OpenRunner, Run, Worker
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import read_grid, record_scan
from cascade_rt.scans.volume import read_mask

NETWORK_STEPS = ("stage1", "stage2")
"""The steps in which the networks compute."""
_ORDER = ("load", "preprocess", "stage1", "crop", "stage2", "paste", "measure", "save")
"""Order in which steps are shown; other steps follow them."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of a measurement."""

    rounds: int = 5
    """Number of rounds, in each of which every arm segments every scan once."""
    warm_up_s: float = 3.0
    """Minimum warm-up of an arm in seconds; it also segments each scan at least once before timing begins."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan."""

    path: Path
    slices: int

    @classmethod
    def of(cls, path: Path, reading: ScanOptions = DEFAULT_SCAN_OPTIONS) -> "Scan":
        """Read the number of slices, and load its files into the page cache, so that no arm has to wait for the disk.

        Raises:
            InputError: The file cannot be used.
        """
        slices = read_grid(path, reading).shape[0]
        record_scan(path, reading)
        return cls(path, slices)


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A timed run, after warm-up."""

    round: int
    scan: Scan
    run: Run


@dataclass(frozen=True, slots=True)
class ArmResult:
    """The results of one arm."""

    name: str
    opened: Opened
    first_run: Run
    """The first scan after opening (cold start)."""
    runs: tuple[TimedRun, ...]
    peak_memory_bytes: int
    gpu_memory_bytes: int | None
    masks: Agreement | None = None
    """Comparison with the masks of the reference; None until compared."""

    @property
    def seconds(self) -> list[float]:
        """Seconds of each timed run, in order."""
        return [each.run.seconds for each in self.runs]

    @property
    def spread(self) -> Spread:
        """Distribution of the run times."""
        return spread(self.seconds)

    @property
    def slices_per_second(self) -> float:
        """Throughput over all timed runs, from file to file."""
        return sum(each.scan.slices for each in self.runs) / sum(self.seconds)

    @property
    def steps(self) -> dict[str, float]:
        """Mean seconds of each step, in the order of the cascade."""
        seen = dict.fromkeys(name for each in self.runs for name in each.run.steps)
        ordered = [*(name for name in _ORDER if name in seen), *(name for name in seen if name not in _ORDER)]
        return {name: sum(each.run.steps.get(name, 0.0) for each in self.runs) / len(self.runs) for name in ordered}

    @property
    def beside_networks(self) -> list[float]:
        """Seconds of each timed run outside the network steps."""
        return [each.run.seconds - sum(each.run.steps.get(name, 0.0) for name in NETWORK_STEPS) for each in self.runs]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results of a measurement."""

    scans: tuple[Scan, ...]
    arms: tuple[ArmResult, ...]
    left_out: Mapping[str, str]
    """Why each skipped arm was not measured. Arms that do not exist on any machine are not listed."""
    reference: str
    """The arm whose masks the others are compared with."""
    no_reference: str = ""
    """Why `reference` is not the arm that was requested; empty if it is."""

    def arm(self, name: str) -> ArmResult | None:
        """Return the result of an arm, or None if it was skipped."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def ratio(self, baseline: str, name: str) -> Ratio | None:
        """Return the speed-up of an arm over the baseline, or None if either was skipped."""
        first, second = self.arm(baseline), self.arm(name)
        return None if first is None or second is None else paired_ratio(first.seconds, second.seconds)


@dataclass(frozen=True, slots=True)
class Reference:
    """The arm whose masks the others are compared with; it need not be timed."""

    name: str
    open_runner: OpenRunner


@dataclass(frozen=True, slots=True)
class Progress:
    """Callbacks of a measurement, which do nothing by default."""

    on_step: Callable[[str], None] = lambda _: None
    """Called with a description of the current step."""
    on_run: Callable[[], None] = lambda: None
    """Called after each timed run."""


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
    """Measure arms on scans, from file to file.

    Args:
        arms: The function that opens each arm, by arm name.
        scans: The scan files.
        schedule: Rounds and warm-up.
        folder: Where masks and reports are written; it is not removed.
        reference: The arm whose masks the others are compared with. If it cannot run, the first arm replaces it.
        all_must_run: Whether to raise if an arm cannot run. If False, it is skipped and the reason is recorded.
        progress: Callbacks.
        reading: Facts about the scans that the user supplies because the files do not state them; the arms receive
            theirs when they are created.

    Raises:
        InputError: A scan cannot be used.
        BackendUnavailableError: No arm can run.
        CascadeError: An arm cannot run and `all_must_run` is True.
    """
    told, looked_at = progress or Progress(), tuple(Scan.of(path, reading) for path in scans)
    with _Race(folder, looked_at, told, all_must_run) as race:
        race.start(arms, schedule)
        race.run_rounds(schedule.rounds)
        race.finish()
    if not race.results:
        raise BackendUnavailableError("no arm can run here: " + "; ".join(race.left_out.values()))
    name, why = _reference(race, reference, looked_at)
    expected = race.masks(name)
    results = (replace(each, masks=compare_masks(race.masks(each.name), expected)) for each in race.results.values())
    return Measurement(looked_at, tuple(results), race.left_out, name, why)


class _Race:
    """Arms that are open at the same time and take turns. An arm that fails is skipped, and the others continue."""

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
        """Return the mask path of each scan for an arm, and create their folder."""
        paths = mask_paths(self._folder, name, len(self._scans))
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        return paths

    def start(self, arms: Mapping[str, OpenRunner], schedule: Schedule) -> None:
        """Open and warm up every arm."""
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
        """Run all scans, repeat until the time is over, and return the first run."""
        start = time.perf_counter()
        pairs = list(zip(self._scans, self.masks(name), strict=True))
        first, *_ = [self._workers[name].run(scan.path, mask) for scan, mask in pairs]
        while time.perf_counter() - start < seconds:
            for scan, mask in pairs:
                self._workers[name].run(scan.path, mask)
        return first

    def run_rounds(self, rounds: int) -> None:
        """Run all arms on every scan in turns, each starting with a different arm."""
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
        """Collect the results of each arm, including its memory, and end its process."""
        for name, runs in list(self._runs.items()):
            worker = self._workers[name]
            try:
                peak_memory_bytes = worker.peak_memory_bytes()
            except CascadeError as error:
                self._leave_out(name, error)
                continue
            self.results[name] = ArmResult(
                name=name,
                opened=worker.opened,
                first_run=self._first[name],
                runs=tuple(runs),
                peak_memory_bytes=peak_memory_bytes,
                gpu_memory_bytes=worker.gpu_memory_bytes(),
            )
            worker.close()

    def _leave_out(self, name: str, error: CascadeError) -> None:
        if self._all_must_run or isinstance(error, InputError):
            raise error
        self._runs.pop(name, None)
        # A precision that a backend does not support is missing on every machine, not just on this one.
        if not isinstance(error, UsageError):
            self.left_out[name] = str(error)


def mask_paths(folder: Path, name: str, count: int) -> list[Path]:
    """Return the mask path of each scan for an arm in the folder of a measurement."""
    own = folder / re.sub(r"[^\w.+-]", "_", name)
    return [own / f"{index}_seg.nii.gz" for index in range(count)]


def rotated(names: list[str], turn: int) -> list[str]:
    """Rotate the names, so that each turn begins with a different one."""
    first = turn % len(names) if names else 0
    return names[first:] + names[:first]


def _reference(race: _Race, reference: Reference, scans: tuple[Scan, ...]) -> tuple[str, str]:
    """Return the arm that the masks are compared with and, if it is not the one requested, the reason."""
    if reference.name in race.results:
        return reference.name, ""
    try:
        with Worker(reference.name, reference.open_runner) as worker:
            for scan, mask in zip(scans, race.masks(reference.name), strict=True):
                worker.run(scan.path, mask)
    except CascadeError as error:
        return next(iter(race.results)), str(error)
    return reference.name, ""


def compare_masks(masks: Sequence[Path], references: Sequence[Path]) -> Agreement:
    """Compare mask files with those of the reference, scan by scan."""
    pairs = zip(references, masks, strict=True)
    return sum((compare(read_mask(one), read_mask(other), LOWEST_LABEL) for one, other in pairs), start=Agreement())
