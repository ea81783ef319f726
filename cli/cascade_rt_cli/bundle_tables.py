"""A bundle as people read it."""

from collections.abc import Iterator

from cascade_rt.bundle import Bundle
from cascade_rt_cli.console import print_rows, results_console


def print_bundle(bundle: Bundle) -> None:
    """Print what a bundle is; its files have been checked when it was opened."""
    print_rows(results_console(), _rows(bundle))


def _rows(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    config, training, parity = manifest.config, manifest.training, manifest.parity
    yield "bundle", f"{manifest.name}, exported {manifest.created}"
    yield "use", manifest.intended_use
    yield "networks", f"base width {config.base_width}, {config.norm} norm, window {config.window_hu} HU"
    yield (
        "crop",
        f"margin {config.crop.margin}, grid {config.crop.grid}, slices without organ: {config.crop.empty_policy}",
    )
    yield "trained on", f"{training.get('data', 'not recorded')}, {training.get('epochs', '?')} epochs"
    for stage in ("stage1", "stage2"):
        errors = ", ".join(f"{name} {error:.1g}" for name, error in parity.get(stage, {}).get("max_error", {}).items())
        yield "parity", f"{stage} against PyTorch, largest error: {errors or 'not recorded'}"
    for name, record in manifest.files.items():
        yield "file", f"{name}  {record.bytes / 1e6:.1f} MB  sha256 {record.sha256[:16]}…  as exported"
