"""The contours of an RT structure set enclose exactly the voxels of the mask."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from matplotlib.path import Path as Polygon

from cascade_rt.results.dicom import write_rtstruct
from cascade_rt.results.dicom.contours import outlines
from cascade_rt.scans.volume import Volume, mask_on_source_grid
from tests.dicom_results import Mask, complaints, lopsided_mask, read_scan, real_slices, segmented, write_scan

Flags = npt.NDArray[np.bool_]


@pytest.fixture(scope="module", params=["synthetic", "real"])
def volume(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    folder = tmp_path_factory.mktemp("scan") / "slices"
    if request.param == "synthetic":
        return read_scan(write_scan(folder))
    return read_scan(real_slices(request.getfixturevalue("sample_ct"), folder))


def inside(polygons: list[npt.NDArray[np.float64]], shape: tuple[int, ...]) -> Flags:
    """The pixels whose centers are inside an odd number of polygons (row, col)."""
    centers = np.argwhere(np.ones(shape, dtype=bool))
    counts = sum((Polygon(np.vstack([each, each[:1]])).contains_points(centers) for each in polygons), start=0)
    odd: Flags = (np.asarray(counts) % 2 == 1) * np.ones(len(centers), dtype=bool)
    return odd.reshape(shape)


def ring() -> Flags:
    mask = np.zeros((9, 9), dtype=bool)
    mask[1:8, 1:8] = True
    mask[3:6, 3:6] = False
    mask[4, 4] = True
    return mask


MASKS = {
    "nothing": np.zeros((3, 4), dtype=bool),
    "everything": np.ones((3, 4), dtype=bool),
    "one pixel": np.eye(1, dtype=bool),
    "pixels that touch at a corner": np.eye(4, dtype=bool),
    "pixels that touch at the other corner": np.eye(4, dtype=bool)[::-1],
    "a ring around a pixel": ring(),
    "noise": np.random.default_rng(5).random((40, 30)) < 0.5,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_centers_inside_the_outlines_are_the_mask(mask: Flags) -> None:
    np.testing.assert_array_equal(inside(outlines(mask), mask.shape), mask)


def test_a_hole_has_an_outline_of_its_own() -> None:
    assert len(outlines(ring())) == 3


def test_a_pixel_is_a_diamond_around_its_center() -> None:
    (diamond,) = outlines(np.pad(np.ones((1, 1), dtype=bool), 2))
    np.testing.assert_array_equal(sorted(diamond.tolist()), [[1.5, 2], [2, 1.5], [2, 2.5], [2.5, 2]])


def test_a_straight_side_has_no_corners_between_its_ends() -> None:
    (polygon,) = outlines(np.ones((20, 30), dtype=bool))
    assert len(polygon) == 8


def read_back(path: Path, volume: Volume) -> Mask:
    """The mask `[slice, row, col]` from the contours, in the images that they refer to."""
    assert volume.dicom is not None
    by_uid = {str(header.SOPInstanceUID): (index, header) for index, header in enumerate(volume.dicom.datasets)}
    columns, rows, slices = volume.grid.shape
    mask = np.zeros((slices, rows, columns), dtype=np.uint8)
    for roi in pydicom.dcmread(path).ROIContourSequence:
        polygons: dict[int, list[npt.NDArray[np.float64]]] = {}
        for contour in roi.get("ContourSequence", ()):
            index, header = by_uid[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3) - header.ImagePositionPatient
            axes = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
            assert np.abs(points @ np.cross(*axes)).max() < 1e-3
            polygons.setdefault(index, []).append((points @ axes[::-1].T) / header.PixelSpacing)
        for index, found in polygons.items():
            mask[index][inside(found, (rows, columns))] = roi.ReferencedROINumber
    return mask


def test_the_contours_enclose_the_voxels_of_the_mask(volume: Volume, tmp_path: Path) -> None:
    mask = lopsided_mask(volume.voxels.shape)
    write_rtstruct(segmented(volume, mask), tmp_path / "rt.dcm")
    np.testing.assert_array_equal(read_back(tmp_path / "rt.dcm", volume), mask_on_source_grid(mask, volume).T)


def test_it_is_valid(volume: Volume, tmp_path: Path) -> None:
    write_rtstruct(segmented(volume, lopsided_mask(volume.voxels.shape)), tmp_path / "rt.dcm")
    assert complaints(tmp_path / "rt.dcm") == set()


def test_an_empty_mask_lists_what_was_looked_for(volume: Volume, tmp_path: Path) -> None:
    write_rtstruct(segmented(volume, np.zeros(volume.voxels.shape, dtype=np.uint8)), tmp_path / "rt.dcm")
    assert complaints(tmp_path / "rt.dcm") == set()
    names = [roi.ROIName for roi in pydicom.dcmread(tmp_path / "rt.dcm").StructureSetROISequence]
    assert names == ["Pancreas (without tumor)", "Tumor"]


def test_nothing_is_declared_a_target(volume: Volume, tmp_path: Path) -> None:
    write_rtstruct(segmented(volume, lopsided_mask(volume.voxels.shape)), tmp_path / "rt.dcm")
    observations = pydicom.dcmread(tmp_path / "rt.dcm").RTROIObservationsSequence
    assert {item.RTROIInterpretedType for item in observations} == {"NONE"}


def test_the_same_mask_gives_the_same_bytes(volume: Volume, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_rtstruct(segmented(volume, lopsided_mask(volume.voxels.shape)), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
