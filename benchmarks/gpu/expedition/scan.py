"""Does PyTorch find the same masks on the GPU as on the CPU? Whole scans, and the gate of exports."""

import time

import numpy as np

from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.device import clock_of
from benchmarks.gpu.expedition.parts import Write
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.gates import gate_of_pytorch, pytorch_on
from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.comparison import compare
from cascade_rt.common.labels import LOWEST_LABEL
from cascade_rt.data.phantom import Phantom, make_phantom
from cascade_rt.run.scan_run import segment_voxels
from cascade_rt_export.calibration import phantom_calibration

BUNDLES = ("phantom", "patients-tumor", "patients")
CALIBRATION_SLICES = 24
SEED = 10_001


def run(settings: Settings, write: Write, deadline: Deadline) -> None:
    """Segment a phantom with each embedded bundle on both devices, then compare the networks' outputs on slices.

    Raises:
        BackendUnavailableError: PyTorch cannot use the GPU.
    """
    clock_of(settings.device)
    slices, rows, cols = settings.scan_shape
    phantom = make_phantom(SEED, (slices, rows, cols), tumor=True)
    for name in BUNDLES:
        if not deadline.passed:
            write("scan", compare_devices(read_bundle(embedded_bundle_path(name)), phantom, settings.device))
    side = settings.calibration_side
    calibration = phantom_calibration((CALIBRATION_SLICES, side, side))
    write("gate", gate_of_pytorch(read_bundle(embedded_bundle_path("phantom")), calibration, settings.device))


def compare_devices(bundle: Bundle, phantom: Phantom, device: str) -> dict[str, object]:
    """Segment a phantom on the CPU and on a device; on the device the second run is timed.

    Args:
        bundle: The networks.
        phantom: The scan.
        device: What is compared with the CPU.
    """
    masks, seconds = [], []
    for each in ("cpu", device):
        with pytorch_on(bundle, each) as engines:
            config = bundle.manifest.config
            if each != "cpu":
                segment_voxels(engines, config, phantom.hu, phantom.spacing_mm[1:])
            start = time.perf_counter()
            masks.append(segment_voxels(engines, config, phantom.hu, phantom.spacing_mm[1:]).mask)
            seconds.append(time.perf_counter() - start)
    found = compare(masks[0], masks[1], LOWEST_LABEL)
    return {
        "bundle": bundle.manifest.name,
        "shape": list(phantom.hu.shape),
        "device": device,
        "different": found.different,
        "dice": found.dice,
        "labelled": {
            int(label): int(count) for label, count in zip(*np.unique(masks[0], return_counts=True), strict=True)
        },
        "cpu_s": seconds[0],
        "device_s": seconds[1],
        "reason": None,
    }
