"""What a scan costs besides its networks, in bytes and calls: these promises keep it fast, and need no clock."""

import math
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.common.tensors import CROPS_PER_BATCH, SLICES_PER_BATCH
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.cohort.cases import plan_cases
from cascade_rt.run.inference import RunOptions, infer_file, infer_files
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions
from tests.cohort_files import AFFINE, fake_cascade

SIDE = 256
PIXELS = SIDE * SIDE
VOLUME, MASK = 2 * PIXELS, PIXELS
"""Bytes of a slice that a scan and its mask have to have: int16 and uint8."""
BLOCKS = 36 << 20
"""Bytes for everything else, however long the scan: blocks of slices, crops that wait, what is being decompressed. A
second mask of the longest scan below is larger, and so is any array of it in float32 or float64."""
SLICES = 640
AS_IT_LIES, FROM_THE_HEAD, TURNED = np.eye(4), np.diag([1.0, 1.0, -1.0, 1.0]), np.eye(4)[:, [1, 0, 2, 3]]


def write_scan(path: Path, slices: int, *, slope: float = 1.0, axes: np.ndarray = AS_IT_LIES) -> Path:
    """A body of fat with an organ that crosses the middle third of the slices, as a file of few bytes."""
    voxels = np.full((slices, SIDE, SIDE), -1000, dtype=np.int16)
    voxels[:, 40:200, 40:220] = -100
    voxels[slices // 3 : 2 * slices // 3, 100:140, 90:150] = 100
    voxels[slices // 2, 110:120, 100:110] = 200
    voxels = (voxels / slope).astype(np.int16)
    image = nib.Nifti1Image(voxels.T, AFFINE @ axes)
    image.header.set_slope_inter(slope, 0)
    nib.save(image, path)
    return path


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that was taken at any moment of some work, as Python and numpy report it."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    """Without networks."""
    return fake_cascade(empty_policy="skip")


@pytest.fixture(scope="module", autouse=True)
def warm(cascade: Cascade, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Segment a scan, so that all is imported."""
    folder = tmp_path_factory.mktemp("warm")
    infer_file(cascade, plan_cases([write_scan(folder / "a.nii.gz", 6)], folder)[0])


@pytest.mark.parametrize(
    ("slope", "axes"),
    [(1.0, AS_IT_LIES), (0.5, AS_IT_LIES), (1.0, FROM_THE_HEAD), (1.0, TURNED)],
    ids=["as it lies", "scaled", "from the head", "turned"],
)
def test_a_scan_takes_its_voxels_its_mask_and_a_few_blocks(
    cascade: Cascade, tmp_path: Path, slope: float, axes: np.ndarray
) -> None:
    (case,) = plan_cases([write_scan(tmp_path / "a.nii.gz", SLICES, slope=slope, axes=axes)], tmp_path / "out")
    peak = peak_bytes(lambda: infer_file(cascade, case))
    assert peak < SLICES * (VOLUME + MASK) + BLOCKS < SLICES * (VOLUME + 2 * MASK)


@pytest.mark.parametrize("search", [WHOLE_SCAN, SearchOptions(4, body_box=True)], ids=["whole", "less"])
def test_a_longer_scan_takes_more_only_for_its_voxels_and_its_mask(
    cascade: Cascade, tmp_path: Path, search: SearchOptions
) -> None:
    peaks = []
    for slices in (SLICES // 4, SLICES // 2):
        (case,) = plan_cases([write_scan(tmp_path / f"{slices}.nii.gz", slices)], tmp_path / "out")
        peaks.append(peak_bytes(lambda case=case: infer_file(cascade, case, RunOptions(search=search))))  # type: ignore[misc]
    # Half a second mask is for blocks that the threads happen to hold at the same moment, or not.
    assert peaks[1] - peaks[0] < (SLICES // 4) * (VOLUME + 1.5 * MASK)


def test_many_scans_take_no_more_than_three_of_them(cascade: Cascade, tmp_path: Path) -> None:
    slices = SLICES // 3
    scans = [write_scan(tmp_path / f"{number}.nii.gz", slices) for number in range(6)]

    def run() -> None:
        for outcome in infer_files(cascade, plan_cases(scans, tmp_path / "out")):
            del outcome

    assert peak_bytes(run) < slices * 3 * (VOLUME + MASK) + BLOCKS


def counting(cascade: Cascade) -> tuple[Cascade, dict[str, list[np.ndarray]]]:
    """The cascade, and what its engines are given: the memory itself, not a copy."""
    given: dict[str, list[np.ndarray]] = {"stage1": [], "stage2": []}

    def watched(engine: FakeEngine) -> FakeEngine:
        def compute(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            given[engine.stage] += inputs.values()
            return engine.run(inputs)

        return FakeEngine(engine.stage, compute)

    engines = cascade.engines
    return Cascade(
        cascade.bundle,
        replace(engines, stage1=watched(engines.stage1), stage2=watched(engines.stage2)),  # type: ignore[arg-type]
    ), given


def test_every_slice_goes_through_stage_1_once_in_full_batches(cascade: Cascade, tmp_path: Path) -> None:
    watched, given = counting(cascade)
    (case,) = plan_cases([write_scan(tmp_path / "a.nii.gz", 50)], tmp_path)
    infer_file(watched, case)
    assert len(given["stage1"]) == math.ceil(50 / SLICES_PER_BATCH)
    assert sum(len(hu) for hu in given["stage1"]) == 50


def test_every_crop_goes_through_stage_2_once_in_full_batches(cascade: Cascade, tmp_path: Path) -> None:
    watched, given = counting(cascade)
    (case,) = plan_cases([write_scan(tmp_path / "a.nii.gz", 60)], tmp_path)
    found = infer_file(watched, case)
    assert sum(len(crops) for crops in given["stage2"]) == len(found.boxes) == 20
    assert len(given["stage2"]) == math.ceil(20 / CROPS_PER_BATCH)


def test_all_slices_enter_stage_1_through_the_same_memory(cascade: Cascade, tmp_path: Path) -> None:
    watched, given = counting(cascade)
    (case,) = plan_cases([write_scan(tmp_path / "a.nii.gz", 50)], tmp_path)
    infer_file(watched, case)
    assert all(np.shares_memory(first, second) for first, second in pairwise(given["stage1"]))


def test_the_engines_see_float32_and_the_mask_is_made_of_bytes(cascade: Cascade, tmp_path: Path) -> None:
    watched, given = counting(cascade)
    (case,) = plan_cases([write_scan(tmp_path / "a.nii.gz", 10)], tmp_path)
    found = infer_file(watched, case)
    assert {array.dtype for arrays in given.values() for array in arrays} == {np.dtype(np.float32)}
    assert (found.volume.voxels.dtype, found.mask.dtype) == (np.int16, np.uint8)
