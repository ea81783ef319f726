"""The real engines, where they are installed: whole scans, the gate, and the networks; a reason where they are not."""

import importlib.util
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.arms import ARMS, BASELINE, Arm
from benchmarks.gpu.clock import Turns
from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.device import clock_of, own_stream
from benchmarks.gpu.expedition.parts import Write
from benchmarks.gpu.expedition.plans import plans
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.gates import measure_gates
from benchmarks.gpu.lines import reason_of
from benchmarks.gpu.network import add_graphs, random_network
from benchmarks.gpu.timings import time_stages
from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import PRECISIONS, STAGES
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import Backend
from cascade_rt_export.calibration import phantom_calibration

BUNDLE = "phantom"
SEED = 10_001
REFERENCE = "pytorch:fp32"
WHOLE_SCANS = {
    "cuda": f"{REFERENCE},onnxruntime-cuda:fp32,onnxruntime-cuda:fp16,tensorrt:fp32,tensorrt:fp16",
    "cpu": f"{REFERENCE},onnxruntime:fp32",
}
BACKENDS: dict[str, tuple[Backend, ...]] = {"cuda": ("onnxruntime-cuda", "tensorrt"), "cpu": ("onnxruntime",)}


def run(settings: Settings, write: Write, deadline: Deadline) -> None:
    """Measure what is installed; what is not, or what fails, is a line with the reason.

    Raises:
        BackendUnavailableError: PyTorch cannot use the GPU.
    """
    clock_of(settings.device)
    bundle = read_bundle(embedded_bundle_path(BUNDLE))
    for line in whole_scans(settings, bundle):
        write("whole_scan", {"reason": None, **line})
    side = settings.calibration_side
    calibration = phantom_calibration((24, side, side))
    for line in measure_gates(bundle, calibration, plans, backends=BACKENDS[settings.device], deadline=deadline):
        write("gate", line)
    for kind, line in networks(settings, deadline):
        write(kind, line)


def whole_scans(settings: Settings, bundle: Bundle) -> Iterator[dict[str, Any]]:
    """What `cascade-rt benchmark` measures, with its arms and processes, on a synthetic scan."""
    slices, rows, cols = settings.scan_shape
    try:
        from cascade_rt.data.phantom_files import write_phantom_files
        from cascade_rt.measuring.benchmarking.arms import parse_arms
        from cascade_rt.measuring.benchmarking.cascade_runner import runners
        from cascade_rt.measuring.benchmarking.measure import Reference, Schedule, measure
        from cascade_rt.measuring.benchmarking.report import describe_bundle, measurement_lines

        arms = runners(bundle.path, parse_arms(WHOLE_SCANS[settings.device]), plans)
        schedule = Schedule(rounds=settings.rounds, warm_up_s=settings.turn_seconds)
        with tempfile.TemporaryDirectory() as folder:
            scan = Path(folder) / "phantom.nii.gz"
            write_phantom_files(make_phantom(SEED, (slices, rows, cols)), scan, Path(folder) / "label.nii.gz")
            found = measure(
                arms, [scan], schedule, Path(folder), Reference(REFERENCE, arms[REFERENCE]), all_must_run=False
            )
    except Exception as error:  # noqa: BLE001  packages that read files may be missing; the networks do without
        yield {"reason": reason_of(error)}
        return
    for line in measurement_lines(found, schedule, {"bundle": describe_bundle(bundle)}):
        yield {"kind_of_line": line.pop("kind"), **line}


def networks(settings: Settings, deadline: Deadline) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stages alone, beside PyTorch, on graphs that are exported here; nothing is exported if nothing reads it."""
    arms = [arm for arm in ARMS if arm.graph is not None and installed(arm)]
    if not arms:
        yield "timing", {"reason": "neither TensorRT nor an ONNX Runtime with CUDA is installed"}
        return
    network = random_network(settings.base_width)
    precisions = [each for each in PRECISIONS if each in {arm.graph for arm in arms}]
    with tempfile.TemporaryDirectory() as folder, own_stream(settings.device):
        add_graphs(network, Path(folder), partial(print, flush=True), precisions)
        for stage in STAGES:
            for precision in precisions:
                yield "graph", network.describe_graph(stage, precision)
        network.model.to(settings.device)
        turns = Turns(settings.rounds, settings.turn_seconds)
        for line in time_stages(
            network,
            settings.batches,
            clock_of(settings.device),
            turns,
            peaks={},
            arms=[BASELINE, *arms],
            side=settings.side,
            deadline=deadline,
        ):
            yield "timing", line


def installed(arm: Arm) -> bool:
    """Whether the package of an arm is installed with what it needs for a GPU."""
    if arm.name.startswith("tensorrt"):
        return importlib.util.find_spec("tensorrt") is not None
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
