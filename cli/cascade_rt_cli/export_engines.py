"""Compile the engines of a newly exported bundle, and print the precision they were verified to have."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import STAGES
from cascade_rt.engines.engine_cache import BuildOptions
from cascade_rt.engines.nvidia import require_gpu
from cascade_rt.engines.tensorrt_api import import_tensorrt
from cascade_rt.errors import UsageError
from cascade_rt_cli.console import print_rows, results_console, shown
from cascade_rt_cli.options import EngineChoice
from cascade_rt_cli.plans import plans, shown_builds

if TYPE_CHECKING:
    from cascade_rt_export.trt_build import EngineFacts


def check_engine(engine: EngineChoice | None, compute_capability: str | None) -> None:
    """Check before the export that engines can be compiled after it.

    Raises:
        UsageError: A compute capability is given for an engine other than TensorRT-RTX.
        BackendUnavailableError: The package, or for TensorRT the GPU, is missing.
    """
    if compute_capability is not None and engine != "tensorrt-rtx":
        raise UsageError("--compute-capability is for --engine tensorrt-rtx; TensorRT builds for the GPU that is there")
    if engine == "tensorrt":
        require_gpu("tensorrt")
        import_tensorrt("tensorrt")
    elif engine == "tensorrt-rtx":
        import_tensorrt("tensorrt_rtx")


def export_engines(bundle: Bundle, engine: EngineChoice, compute_capability: str | None, *, overwrite: bool) -> None:
    """Compile an engine from each graph. Raises the errors of `open_engine` and `write_plans`."""
    if engine == "tensorrt":
        for precision in bundle.precisions:
            for stage in STAGES:
                plans(bundle, stage, precision)
        return
    from cascade_rt_export.plans import write_plans

    folder = bundle.path.with_name(f"{bundle.path.name}.tensorrt-rtx")
    options = BuildOptions(compute_capability=compute_capability)
    with shown_builds() as on_build:
        facts = write_plans(bundle, folder, options, overwrite=overwrite, on_build=on_build)
    print_rows(results_console(), _rows(folder, facts))


def _rows(folder: Path, facts: Iterable["EngineFacts"]) -> Iterator[tuple[str, str]]:
    for found in facts:
        shares = found.shares
        yield (
            "engine",
            f"{found.stage} in {found.precision}: {shares.half:.0%} of the work of convolutions in half precision, "
            f"{shares.single:.0%} in float32, as the {found.proven_by} of TensorRT-RTX {found.version} says",
        )
    yield "engines", shown(folder)
