"""Results in the forms of other programs: SimpleITK, probabilities in files and arrays, pictures, one-line texts."""

import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from cascade_rt.common.byte_probabilities import to_bytes, to_floats
from cascade_rt.errors import OutputError, UsageError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.scans.volume import Volume
from tests.cohort_files import fake_cascade
from tests.volume_files import ANATOMY, LPS_AFFINE, ORIENTATIONS, oriented, rotation

SHAPE = (6, 64, 80)
VOXELS = np.full(SHAPE, -1000, dtype=np.int16)
VOXELS[1:5, 20:40, 20:50] = 100
VOXELS[2:4, 25:30, 25:40] = 200


def segmented(keep: Any = True, orientation: int = 0, **options: Any) -> tuple[Segmentation, np.ndarray, np.ndarray]:
    """What the fake cascade finds, the scan in some orientation, and its affine."""
    array, affine = oriented(ORIENTATIONS[orientation], rotation(10, 15), VOXELS)
    volume = Volume.from_array(array, affine, name="case_7")
    return fake_cascade(**options).run(volume, keep_probabilities=keep), array, affine


@pytest.mark.parametrize("orientation", [0, 5, 30, 47])
def test_an_image_for_simpleitk_lies_where_the_scan_does(orientation: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    found, array, affine = segmented(orientation=orientation)
    image = found.to_simpleitk()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, (array >= 100) * 1 + (array >= 200))
    left, back, up = image.TransformIndexToPhysicalPoint((3, 2, 1))
    np.testing.assert_allclose([-left, -back, up, 1], affine @ [3, 2, 1, 1], atol=1e-4)


def test_what_came_from_simpleitk_goes_back_to_its_place() -> None:
    sitk = pytest.importorskip("SimpleITK")
    given = sitk.GetImageFromArray(VOXELS)
    given.SetSpacing((0.7, 0.8, 2.5))
    given.SetOrigin((-120.5, 33.25, -900))
    given.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    image = fake_cascade().segment(given).to_simpleitk()
    for place in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(image, place)(), getattr(given, place)(), atol=1e-9)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), (VOXELS >= 100) * 1 + (VOXELS >= 200))


@pytest.mark.parametrize("keep", [True, "uint8"])
def test_probabilities_are_real_numbers_however_they_were_kept(keep: Any) -> None:
    found, array, _ = segmented(keep, orientation=30)
    maps = found.probabilities()
    assert {name: prob.dtype for name, prob in maps.items()} == {"organ": np.float32, "tumor": np.float32}
    np.testing.assert_array_equal(maps["tumor"], array >= 200)
    np.testing.assert_array_equal(found.probabilities(on_grid=False)["organ"], VOXELS >= 100)
    np.testing.assert_array_equal(found.to_nibabel("organ_prob").get_fdata(), array >= 100)


def test_bytes_take_a_quarter_of_the_memory() -> None:
    found, _, _ = segmented("uint8")
    assert found.organ_prob is not None
    assert found.organ_prob.nbytes == VOXELS.size


def test_where_no_tumor_is_looked_for_there_is_one_map() -> None:
    found, _, _ = segmented(target="organ")
    assert list(found.probabilities()) == ["organ"]


def test_probabilities_that_were_not_kept_are_an_error() -> None:
    with pytest.raises(UsageError, match="keep_probabilities=True"):
        segmented(keep=False)[0].probabilities()


def test_half_is_never_rounded_away() -> None:
    half = np.array([0, np.nextafter(np.float32(0.5), np.float32(0)), 0.5, 1, 1.001, -0.001], dtype=np.float32)
    assert to_bytes(half).tolist() == [0, 127, 128, 255, 255, 0]


def test_bytes_are_off_by_half_a_unit_at_most() -> None:
    values = np.linspace(0, 1, 10_001, dtype=np.float32)
    assert np.abs(to_floats(to_bytes(values)) - values).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("keep", [True, "uint8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_of_probabilities_has_both_maps_on_the_grid_of_the_scan(keep: Any, suffix: str, tmp_path: Path) -> None:
    found, array, affine = segmented(keep, orientation=17)
    found.save_probabilities(tmp_path / f"prob{suffix}")
    image = nib.load(tmp_path / f"prob{suffix}")
    assert image.shape == (*array.shape, 2)
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    values = image.get_fdata()
    assert values.max() <= 1
    np.testing.assert_array_equal(values[..., 0] >= 0.5, array >= 100)
    np.testing.assert_array_equal(values[..., 1] >= 0.5, array >= 200)
    assert image.header["descrip"].item() == b"cascade-rt probabilities: pancreas, tumor"


def test_a_file_of_probabilities_names_the_only_map(tmp_path: Path) -> None:
    found, _, _ = segmented(target="organ")
    found.save_probabilities(tmp_path / "prob.nii")
    image = nib.load(tmp_path / "prob.nii")
    assert image.shape[3:] == (1,)
    assert image.header["descrip"].item() == b"cascade-rt probabilities: pancreas"


def test_probabilities_are_written_as_nifti_only(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"ends in \.nii or \.nii\.gz"):
        segmented()[0].save_probabilities(tmp_path / "prob.npz")


def test_a_notebook_shows_the_preview() -> None:
    with Image.open(io.BytesIO(segmented()[0]._repr_png_())) as picture:
        assert picture.format == "PNG"


def test_texts_are_one_line_without_arrays_and_folders() -> None:
    cascade = fake_cascade()
    volume = Volume.from_array(ANATOMY.T, LPS_AFFINE, name="case_7")
    found = segmented()[0]
    assert repr(volume) == "<Volume 'case_7': 4x5x6 voxels of 2.5x0.8x0.7 mm (z, row, col)>"
    assert repr(found).startswith("<Segmentation of 'case_7': ")
    assert repr(cascade.bundle) == "<Bundle 'fake': fp32, 000000000000>"
    assert repr(cascade).startswith("<Cascade 'fake': <Engines: fake ")
    cascade.close()
    assert repr(cascade) == "<Cascade 'fake': closed>"
    assert repr(found.on_grid()) == "<OnGrid: mask, organ_prob, tumor_prob of 80x64x6 voxels (i, j, k), affine>"
    for each in (volume, found, found.on_grid(), cascade, cascade.bundle, cascade.engines):
        assert "\n" not in repr(each)
        assert len(repr(each)) < 120
