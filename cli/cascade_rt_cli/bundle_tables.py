"""Print a bundle for human readers."""

from collections.abc import Iterator, Mapping
from typing import Any

from cascade_rt.bundles.bundle import Bundle
from cascade_rt_cli.console import print_rows, results_console


def print_bundle(bundle: Bundle) -> None:
    """Print a summary of a bundle. Its files were already checked when it was opened."""
    print_rows(results_console(), _rows(bundle))


def _rows(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    config, training, parity = manifest.config, manifest.training, manifest.parity
    crop = config.crop
    yield "bundle", f"{manifest.name}, exported {manifest.created}"
    yield "use", manifest.intended_use
    yield "networks", f"base width {config.base_width}, {config.norm} norm, window {config.window_hu} HU"
    yield (
        "crop",
        f"margin {crop.margin}, grid {crop.grid}, corners on multiples of {crop.corner_grid}, "
        f"slices without organ: {crop.empty_policy}",
    )
    least = f" of at least {config.least_island_ml:g} ml" if config.least_island_ml else ""
    yield "islands", f"{config.islands}{least}"
    yield "trained on", f"{training.get('data', 'not recorded')}, {training.get('epochs', '?')} epochs"
    if config.pixel_mm is not None:
        shortest, longest = config.pixel_mm
        yield "", f"pixels of {shortest:.3g} to {longest:.3g} mm; scans with others are resampled"
    for stage in ("stage1", "stage2"):
        errors = ", ".join(f"{name} {error:.1g}" for name, error in parity.get(stage, {}).get("max_error", {}).items())
        yield "parity", f"{stage} against PyTorch, largest error: {errors or 'not recorded'}"
    for precision, found in parity.get("gate", {}).items():
        engine = found["engine"]
        yield "masks", f"{precision} on {engine['backend']} {engine['device']} against PyTorch: {gate_summary(found)}"
    if manifest.half_precision:
        yield "", "a CPU rounds less than a GPU: run cascade-rt verify on the GPU too"
    for stage, planned in manifest.half_precision.items():
        nodes = sum(len(rule["nodes"]) for rule in planned["kept"])
        share = planned["half_share_of_convolutions"]
        work = "no convolutions" if share is None else f"{share:.0%} of the work of convolutions"
        dropped = planned.get("dropped_by_search")
        searched = "" if dropped is None else f", {dropped} more were found not to need it"
        yield "half", f"{stage}: {work}, {nodes} nodes kept in float32{searched}"
    if "half_precision_left_out" in parity:
        yield "half", f"left out: {parity['half_precision_left_out']}"
    for name, record in manifest.files.items():
        yield "file", f"{name}  {record.bytes / 1e6:.1f} MB  sha256 {record.sha256[:16]}…  as exported"


def gate_summary(found: Mapping[str, Any]) -> str:
    """Summarize the gate's measurements of one engine in one line."""
    dice = ", ".join(f"{name} {format_dice(found[name]['mask_dice'])}" for name in ("organ", "tumor"))
    errors = ", ".join(f"{found[name]['max_error']:.1g}" for name in ("organ", "tumor"))
    moved, changed = len(found["boxes_moved"]), len(found["tumors_appeared"]) + len(found["tumors_vanished"])
    return (
        f"Dice {dice}; largest error {errors}; of {found['slices']} slices {moved} with another box, "
        f"{changed} with a tumor in one of both only"
    )


def format_dice(value: float | None) -> str:
    """Format a Dice to five decimal places."""
    return "undefined (both empty)" if value is None else f"{value:.5f}"
