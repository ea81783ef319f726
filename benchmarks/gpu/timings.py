"""Timing all arms on one task, each beside the others."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from benchmarks.gpu.arms import ARMS, BASELINE, Arithmetic, Arm
from benchmarks.gpu.clock import Clock, Run, Turns, race, speedup, statistics_of
from benchmarks.gpu.deadline import NEVER, NO_TIME, Deadline
from benchmarks.gpu.lines import reason_of
from benchmarks.gpu.network import Network, Task, count_work, usual_side
from cascade_rt.common.tensors import STAGES, Stage

EMPTY: Mapping[str, Any] = dict.fromkeys(
    (
        *("median_s", "p90_s", "p99_s", "runs", "rounds", "speedup", "speedup_lowest", "speedup_highest"),
        *("tflops", "share_of_peak", "reason"),
    )
)
"""What a line has where nothing was measured."""


def measure_timings(
    network: Network,
    task: Task,
    clock: Clock,
    turns: Turns,
    *,
    peaks: Mapping[Arithmetic, float],
    arms: Sequence[Arm] = ARMS,
    deadline: Deadline = NEVER,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """Time the arms in turns; a line for each, also for one that cannot be opened or that fails.

    Args:
        network: The network.
        task: What is computed.
        clock: What measures.
        turns: How often and how long.
        peaks: Products of matrices of each arithmetic, in TFLOP/s.
        arms: What is timed. Without `BASELINE` among them there are no ratios.
        deadline: After it no arm is opened or warmed up.
        say: Called with a sentence before each step.
    """
    runs: dict[str, Run] = {}
    reasons: dict[str, str] = {}
    for arm in arms:
        if deadline.passed:
            reasons[arm.name] = NO_TIME
            continue
        say(f"{task.stage}, batch {task.batch}: opening {arm.name}")
        try:
            runs[arm.name] = arm.open(network, task)
        except Exception as error:  # noqa: BLE001  a package may be missing or the memory full; the others go on
            reasons[arm.name] = reason_of(error)
    say(f"{task.stage}, batch {task.batch}: timing {', '.join(runs) or 'nothing'}")
    raced = race(runs, clock, turns, deadline)
    runs.clear()
    reasons |= raced.reasons
    work = _work(network, task)
    for arm in arms:
        line = {**_description(network, task, arm, work), **EMPTY, "reason": reasons.get(arm.name)}
        if arm.name in raced.rounds:
            rounds = raced.rounds[arm.name]
            line |= statistics_of(rounds)
            line |= _shares(work, line["median_s"], peaks.get(arm.arithmetic))
            if BASELINE.name in raced.rounds:
                line |= speedup(raced.rounds[BASELINE.name], rounds)
        yield line
    _free()


def time_stages(
    network: Network,
    batches: Sequence[int],
    clock: Clock,
    turns: Turns,
    *,
    peaks: Mapping[Arithmetic, float],
    arms: Sequence[Arm],
    stages: Sequence[Stage] = STAGES,
    side: int | None = None,
    deadline: Deadline = NEVER,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """Time stages in several batches (see `measure_timings`).

    Args:
        network: The network, on the device that is measured.
        batches: Images at once.
        clock: What measures.
        turns: How often and how long.
        peaks: Products of matrices of each arithmetic, in TFLOP/s.
        arms: What is timed.
        stages: The stages.
        side: Height and width of the images in pixels; None: the usual ones of each stage.
        deadline: After it nothing more is begun; what is left out is a line.
        say: Called with a sentence before each step.
    """
    if not network.multiplications:
        count_work(network)
    for stage in stages:
        for batch in batches:
            task = Task(stage, batch, side or usual_side(stage, network.config))
            yield from measure_timings(network, task, clock, turns, peaks=peaks, arms=arms, deadline=deadline, say=say)


def _work(network: Network, task: Task) -> int | None:
    """Multiplications of convolutions in a run; None where they were not counted for this size."""
    counted = network.multiplications.get(task.stage)
    return None if counted is None or task.side != usual_side(task.stage, network.config) else counted * task.batch


def _description(network: Network, task: Task, arm: Arm, work: int | None) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "stage": task.stage,
        "batch": task.batch,
        "side": task.side,
        "base_width": network.config.base_width,
        "arithmetic": arm.arithmetic,
        "half_share": network.half_shares.get(task.stage) if arm.graph == "fp16" else None,
        "multiplications": work,
    }


def _shares(work: int | None, seconds: float, peak: float | None) -> dict[str, float | None]:
    """Two operations to a multiplication, as peaks are counted."""
    if work is None:
        return {}
    tflops = 2 * work / seconds / 1e12
    return {"tflops": tflops, "share_of_peak": None if peak is None else tflops / peak}


def _free() -> None:
    """Give back what one task took: sessions, compiled code, recorded graphs, cached memory."""
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
