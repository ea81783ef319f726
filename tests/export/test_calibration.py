"""Calibration slices are those of the scans given, and what the stages are fed with them is recorded, not rebuilt."""

from pathlib import Path

import numpy as np
import pytest

from cascade_rt.common.labels import TUMOR_LABEL
from cascade_rt.config import CascadeConfig
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.errors import InputError
from cascade_rt_export.calibration import (
    PHANTOM_ORGAN_SLICES,
    PHANTOM_SEEDS,
    PHANTOM_TUMOR_SLICES,
    SLICES_PER_SCAN,
    Calibration,
    CalibrationScan,
    phantom_calibration,
    scan_calibration,
    stage_inputs,
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    write_phantom_files(make_phantom(3, (20, 64, 64)), folder / "scan.nii.gz", folder / "label.nii.gz")
    return folder / "scan.nii.gz"


def test_slices_are_spread_over_the_whole_scan(scan: Path) -> None:
    (found,) = scan_calibration([scan]).scans
    assert (found.positions[0], found.positions[-1], len(found.positions)) == (0, 19, SLICES_PER_SCAN)
    assert found.voxels.shape == (SLICES_PER_SCAN, 64, 64)


def test_the_source_names_files_without_their_folders(scan: Path) -> None:
    assert scan_calibration([scan]).source == "scans scan.nii.gz"


def test_a_slice_is_called_by_its_place_in_the_scan(scan: Path) -> None:
    assert scan_calibration([scan]).scans[0].slice_name(SLICES_PER_SCAN - 1) == "scan.nii.gz, slice 19"


def test_without_scans_there_is_nothing_to_calibrate_on() -> None:
    with pytest.raises(InputError, match="no scans to calibrate on"):
        scan_calibration([])


def test_phantoms_say_that_no_scans_were_given() -> None:
    assert phantom_calibration((6, 64, 64)).source.endswith("as no scans were given")


def test_most_slices_of_a_phantom_hold_tumor_and_one_does_not() -> None:
    scan = phantom_calibration((24, 64, 64)).scans[0]
    label = make_phantom(PHANTOM_SEEDS[0], (24, 64, 64), tumor=True).label[list(scan.positions)]
    assert (label == TUMOR_LABEL).any(axis=(1, 2)).sum() == PHANTOM_TUMOR_SLICES
    assert label.any(axis=(1, 2)).sum() == PHANTOM_TUMOR_SLICES + PHANTOM_ORGAN_SLICES


def test_stage_2_is_recorded_with_the_crops_of_the_glue() -> None:
    voxels = np.full((2, 128, 128), -500, dtype=np.int16)
    voxels[:, 50:60, 40:70] = 150
    calibration = Calibration("a bar", (CalibrationScan("bar", (0, 1), voxels),))
    engines = Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.5))
    inputs = stage_inputs(calibration, engines, CascadeConfig(base_width=8))
    assert [feeds["hu"].shape for feeds in inputs["stage1"]] == [(2, 1, 128, 128)]
    # 10 x 30 pixels with a margin of 20, on the grid of 32.
    assert [feeds["salient"].shape for feeds in inputs["stage2"]] == [(2, 1, 64, 96)]
