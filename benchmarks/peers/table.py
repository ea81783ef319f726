"""The comparison as Markdown, for benchmarks/README.md."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.peers.arms import PLAIN
from benchmarks.peers.targets import Target, ratio_text
from cascade_rt.measuring.benchmarking.measure import Measurement
from cascade_rt.measuring.benchmarking.statistics import Ratio

_MOST_OPERATORS = 10


def arm_table(measurement: Measurement) -> Iterator[str]:
    """Times beside masks, one row for each arm."""
    columns = (
        *("arm", "s, median (fastest to slowest)", "slices/s", "times as fast as (a)", "beside the networks, s"),
        *("MB at peak", "Dice pancreas / tumor", "voxels in 100,000", "start + first scan, s"),
    )
    yield _row(*columns)
    yield _rule(len(columns))
    for arm in sorted(measurement.arms, key=lambda each: each.spread.p50):
        times, masks = arm.spread, arm.masks
        yield _row(
            arm.name,
            f"{times.p50:.2f} ({times.fastest:.2f} to {times.slowest:.2f})",
            f"{arm.slices_per_second:.1f}",
            _ratio(measurement.ratio(PLAIN, arm.name)),
            f"{sum(arm.beside_networks) / len(arm.runs):.3f}",
            f"{arm.peak_memory_bytes / 1e6:.0f}",
            "-" if masks is None else " / ".join(f"{counts.dice:.4f}" for counts in masks.counts.values()),
            "-" if masks is None else f"{masks.per_100_000:.2f}",
            f"{arm.opened.seconds:.1f} + {arm.first_run.seconds:.1f}",
        )


def step_table(measurement: Measurement) -> Iterator[str]:
    """Milliseconds of each step."""
    steps = list(dict.fromkeys(step for arm in measurement.arms for step in arm.steps))
    yield _row("ms of", *steps)
    yield _rule(1 + len(steps))
    for arm in measurement.arms:
        yield _row(arm.name, *(f"{1e3 * arm.steps[step]:.0f}" if step in arm.steps else "-" for step in steps))


def target_table(targets: Iterable[Target]) -> Iterator[str]:
    """What was to be reached, and what was seen."""
    yield _row("target", "seen", "met")
    yield _rule(3)
    words = {True: "yes", False: "**no**", None: "-"}
    for target in targets:
        yield _row(target.text, target.seen, words[target.met])


def limit_table(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Share of what the processor can do, by stage."""
    yield _row("arm", "stage", "s", "GFLOP", "GFLOP/s", "share of peak", "share of copy speed")
    yield _rule(7)
    for line in lines:
        shares = (line["share_of_peak"], line["share_of_copy"])
        yield _row(
            line["arm"],
            line["stage"],
            f"{line['seconds']:.2f}",
            f"{line['operations'] / 1e9:.0f}",
            f"{line['operations_per_second'] / 1e9:.0f}",
            *("-" if share is None else f"{share:.0%}" for share in shares),
        )


def operator_table(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where the time of a stage goes, the ten largest kinds of operator."""
    yield _row("arm", "stage", "operators by share of the time")
    yield _rule(3)
    for line in lines:
        if line["seconds"] is None:
            yield _row(line["arm"], line["stage"], line["reason"])
            continue
        total = sum(line["seconds"].values())
        largest = list(line["seconds"].items())[:_MOST_OPERATORS]
        yield _row(line["arm"], line["stage"], ", ".join(f"{name} {part / total:.0%}" for name, part in largest))


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else ratio_text(ratio)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
