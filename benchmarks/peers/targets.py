"""What was to be reached, and whether it was: each target with what was seen."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.peers.arms import MONAI, ONNXRUNTIME, OURS, PLAIN, TORCH_BEST
from cascade_rt.measuring.benchmarking.measure import ArmResult, Measurement
from cascade_rt.measuring.benchmarking.report import ratio_json
from cascade_rt.measuring.benchmarking.statistics import Ratio

DIFFERENT_PER_100_000 = 1.0
"""Voxels by which masks in float32 may differ from those of peer (a)."""
LEAST_DICE = 0.995
"""Dice that masks in bfloat16 have to have with those of peer (a)."""
LEAST_TIMES_PLAIN = {8: 3.0, 16: 2.2}
"""By base width."""
GLUE_SHARE = 0.25
"""Of peer (a)'s time beside the networks."""
MEMORY_BYTES = 700 << 20
"""Beside the int16 volume and the mask."""
FOLDER_SHARE = 0.9
"""Of as many single warm runs."""
STAGE_SHARE = 0.5
"""Of the peak in float32, at base width 16."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that was to be reached."""

    text: str
    seen: str
    met: bool | None
    """None where it was not measured."""
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def speed_targets(measurement: Measurement, base_width: int) -> Iterator[Target]:
    """Those of whole scans: the fastest of our arms whose masks are right, beside each peer."""
    float32 = _fastest(measurement, ours=True, precision="fp32")
    if base_width in LEAST_TIMES_PLAIN:
        yield _times(measurement, float32, PLAIN, "peer (a), the plain script", LEAST_TIMES_PLAIN[base_width])
    best = _fastest(measurement, ours=False, precision="fp32")
    yield _times(measurement, float32, best, "peer (b), PyTorch at its best, in float32", 1.4)
    half, best_half = (_fastest(measurement, ours=ours, precision="bf16") for ours in (True, False))
    yield _times(measurement, half, best_half, "peer (b) in bfloat16", 1.4)
    yield _times(measurement, float32, ONNXRUNTIME, "peer (d), ONNX Runtime as it comes", 1.2)
    yield _times(measurement, float32, MONAI, "peer (c), MONAI", None)
    yield _glue(measurement, float32)


def memory_target(peak_bytes: int, voxels: int) -> Target:
    """The peak of one process on a tall scan: the volume in int16, the mask, and a fixed amount."""
    allowed = 3 * voxels + MEMORY_BYTES
    return Target(
        f"peak memory on {voxels:,} voxels: at most the int16 volume, the mask and 700 MB",
        f"{peak_bytes / 1e6:.0f} MB of {allowed / 1e6:.0f}",
        peak_bytes <= allowed,
        {"peak_bytes": peak_bytes, "allowed_bytes": allowed, "voxels": voxels},
    )


def folder_target(count: int, folder_s: list[float], single_s: list[float]) -> Target:
    """A folder of scans beside as many single warm runs; both are the medians of their rounds."""
    folder, single = sorted(folder_s)[len(folder_s) // 2], sorted(single_s)[len(single_s) // 2]
    return Target(
        f"a folder of {count} scans: at most {FOLDER_SHARE} of {count} single warm runs",
        f"{folder / single:.3f} ({folder:.2f} s, {single:.2f} s)",
        folder <= FOLDER_SHARE * single,
        {"folder_s": folder_s, "single_s": single_s},
    )


def stage_target(stage: str, arm: str, share: float) -> Target:
    """How much of the peak in float32 a stage reaches."""
    return Target(
        f"{stage} at base width 16: at least {STAGE_SHARE:.0%} of the peak in float32",
        f"{share:.0%} ({arm})",
        share >= STAGE_SHARE,
        {"arm": arm, "share": share},
    )


def _fastest(measurement: Measurement, *, ours: bool, precision: str) -> str | None:
    """The fastest arm of a precision, ours among those whose masks are as they should be."""
    begins = OURS if ours else TORCH_BEST
    candidates = [
        arm
        for arm in measurement.arms
        if arm.name.startswith(begins)
        and arm.opened.description["precision"] == precision
        and (not ours or masks_hold(arm, precision))
    ]
    return min(candidates, key=lambda arm: arm.spread.p50).name if candidates else None


def masks_hold(arm: ArmResult, precision: str) -> bool:
    """Whether the masks of an arm are those of the reference, as closely as its precision is held to."""
    if arm.masks is None:
        return False
    if precision == "fp32":
        return arm.masks.per_100_000 <= DIFFERENT_PER_100_000
    return min(counts.dice for counts in arm.masks.counts.values()) >= LEAST_DICE


def _times(measurement: Measurement, ours: str | None, peer: str | None, who: str, least: float | None) -> Target:
    wanted = "" if least is None else f": at least {least} times as fast"
    text = f"beside {who}{wanted}"
    ratio = None if ours is None or peer is None else measurement.ratio(peer, ours)
    if ratio is None:
        return Target(text, "not measured, or no arm of ours had the right masks", None, {})
    return Target(
        text,
        f"{ratio_text(ratio)} times, {ours} beside {peer}",
        None if least is None else ratio.ratio >= least,
        {"ours": ours, "peer": peer, "least": least, **ratio_json(ratio)},
    )


def ratio_text(ratio: Ratio) -> str:
    """A ratio with its interval, where it has one."""
    interval = "" if math.isnan(ratio.low) else f" ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"{ratio.ratio:.2f}{interval}"


def _glue(measurement: Measurement, ours: str | None) -> Target:
    text = f"everything but the networks: at most {GLUE_SHARE} of the time of peer (a)"
    first, second = measurement.arm(PLAIN), None if ours is None else measurement.arm(ours)
    if first is None or second is None:
        return Target(text, "not measured", None, {})
    theirs, mine = (sum(arm.beside_networks) / len(arm.runs) for arm in (first, second))
    slices = "+".join(str(scan.slices) for scan in measurement.scans)
    return Target(
        text,
        f"{mine / theirs:.2f} ({mine:.3f} s, {theirs:.3f} s; scans of {slices} slices; {ours})",
        mine <= GLUE_SHARE * theirs,
        {"ours": ours, "ours_s": mine, "peer_s": theirs},
    )
