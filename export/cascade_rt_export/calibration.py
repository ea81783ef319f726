"""Slices for planning half precision and for comparing engines with PyTorch."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cascade_rt.common.labels import TUMOR_LABEL
from cascade_rt.common.tensors import Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.data import demo_patient
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_store import is_synthetic
from cascade_rt.engines import Engines
from cascade_rt.engines.base import Array, EngineInfo, StageEngine
from cascade_rt.errors import InputError
from cascade_rt.run.scan_run import segment_voxels
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions

SLICES_PER_SCAN = 8
PHANTOM_SEEDS = (20_000, 20_001, 20_002, 20_003)
"""Far from any seed used for training."""
PHANTOM_SHAPE = (24, 512, 512)
PHANTOM_TUMOR_SLICES, PHANTOM_ORGAN_SLICES = 3, 1
"""Slices per phantom with and without tumor. With few voxels, a single one would lower the Dice noticeably."""


@dataclass(frozen=True, eq=False, slots=True)
class CalibrationScan:
    """Some slices of one scan."""

    name: str
    positions: tuple[int, ...]
    """Indices of the slices in the scan, from 0."""
    voxels: npt.NDArray[np.int16]
    """`[slice, row, col]`, HU, in the canonical frame."""
    pixel_mm: tuple[float, float] | None = None
    """Row and column spacing in mm, or None if unknown."""

    def slice_name(self, index: int) -> str:
        """Return the name of a slice for messages."""
        return f"{self.name}, slice {self.positions[index]}"


@dataclass(frozen=True, eq=False, slots=True)
class Calibration:
    """Slices of several scans."""

    source: str
    """Description of the slices for the manifest, with file names but not their folders."""
    scans: tuple[CalibrationScan, ...]


def phantom_calibration(shape: tuple[int, int, int] = PHANTOM_SHAPE) -> Calibration:
    """Choose slices of synthetic phantoms that show pancreas, most of them with tumor. Used if no scans are given."""
    scans = []
    for seed in PHANTOM_SEEDS:
        phantom = make_phantom(seed, shape, tumor=True)
        has_organ = phantom.label.any(axis=(1, 2))
        has_tumor = (phantom.label == TUMOR_LABEL).any(axis=(1, 2))
        tumor = _thinned(np.flatnonzero(has_tumor), PHANTOM_TUMOR_SLICES)
        organ = _thinned(np.flatnonzero(has_organ & ~has_tumor), PHANTOM_ORGAN_SLICES)
        scans.append(_slices_of(f"phantom {seed}", phantom.hu, np.union1d(tumor, organ), phantom.spacing_mm[1:]))
    seeds = ", ".join(map(str, PHANTOM_SEEDS))
    return Calibration(f"synthetic phantoms, seeds {seeds}, as no scans were given", tuple(scans))


def default_calibration(training_data: str) -> Calibration:
    """Return the slices to use if no scans are given: of phantoms if trained on phantoms, of patients otherwise."""
    return phantom_calibration() if is_synthetic(training_data) else patient_calibration()


def patient_calibration() -> Calibration:
    """Return the patient slices included in the package, all with pancreas and without tumor."""
    scans = scan_calibration([demo_patient.SCAN], demo_patient.READING).scans
    return Calibration(f"slices of {demo_patient.SOURCE}, as no scans were given", scans)


def scan_calibration(
    paths: Iterable[str | os.PathLike[str]], reading: ScanOptions = DEFAULT_SCAN_OPTIONS
) -> Calibration:
    """Choose slices of scans, evenly spaced over the whole length of each scan.

    Args:
        paths: NIfTI files.
        reading: Options for reading the files.

    Raises:
        InputError: A scan cannot be read, or there are no scans.
    """
    from cascade_rt.scans.opening import read_volume

    scans = []
    for path in map(Path, paths):
        scan = read_volume(path, reading)
        chosen = _thinned(np.arange(len(scan.voxels)), SLICES_PER_SCAN)
        scans.append(_slices_of(path.name, scan.voxels, chosen, scan.spacing_mm[1:]))
    if not scans:
        raise InputError("no scans to calibrate on; pass at least one")
    return Calibration(f"scans {', '.join(scan.name for scan in scans)}", tuple(scans))


def stage_inputs(
    calibration: Calibration, engines: Engines, config: CascadeConfig
) -> dict[Stage, list[Mapping[str, Array]]]:
    """Segment the slices and return the inputs that each stage receives, one entry per batch."""
    stage1, stage2 = _Recorder(engines.stage1), _Recorder(engines.stage2)
    for scan in calibration.scans:
        segment_voxels(Engines(stage1, stage2), config, scan.voxels, scan.pixel_mm)
    return {"stage1": stage1.inputs, "stage2": stage2.inputs}


class _Recorder:
    """An engine wrapper that records its inputs."""

    def __init__(self, engine: StageEngine) -> None:
        self.engine = engine
        self.inputs: list[Mapping[str, Array]] = []

    @property
    def stage(self) -> Stage:
        return self.engine.stage

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    @property
    def preferred_batch(self) -> int:
        return self.engine.preferred_batch

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.inputs.append(inputs)
        return self.engine.run(inputs)

    def close(self) -> None:
        self.engine.close()


def _thinned(positions: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Return at most `count` evenly spaced positions, including the first and the last."""
    chosen = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int)
    kept: npt.NDArray[np.intp] = positions[chosen]
    return kept


def _slices_of(
    name: str, voxels: npt.NDArray[np.int16], chosen: npt.NDArray[np.intp], pixel_mm: tuple[float, float]
) -> CalibrationScan:
    return CalibrationScan(name, tuple(map(int, chosen)), np.ascontiguousarray(voxels[chosen]), pixel_mm)
