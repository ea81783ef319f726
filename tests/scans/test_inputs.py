"""A scan may be a path, an array with its affine, an image of nibabel or SimpleITK, or a volume."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.errors import InputError, OutputError, UsageError
from cascade_rt.scans.inputs import scan_source
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.volume import Volume, write_mask
from tests.volume_files import ANATOMY, LPS_AFFINE, ORIENTATIONS, noisy_tissue, oriented, rotation

sitk = pytest.importorskip("SimpleITK")


def volume_of(scan: Any, options: ScanOptions = ScanOptions()) -> Volume:  # noqa: B008
    with scan_source(scan, options) as source:
        return source.finish()


def image_of(array: np.ndarray, affine: np.ndarray) -> Any:
    """An image of SimpleITK, made by its own reader of NIfTI, so that nothing of ours says where it lies."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    in_lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(in_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((in_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(in_lps[:3, 3].tolist())
    return image


@pytest.mark.parametrize("form", ["array", "nibabel", "simpleitk", "volume"])
def test_every_form_in_memory_is_the_same_scan(form: str) -> None:
    array, affine = ANATOMY.T, rotation(10, 25) @ LPS_AFFINE
    forms = {
        "array": lambda: (array, affine),
        "nibabel": lambda: nib.Nifti1Image(array, affine),
        "simpleitk": lambda: image_of(array, affine),
        "volume": lambda: Volume.from_array(array, affine),
    }
    found = volume_of(forms[form]())
    np.testing.assert_array_equal(found.voxels, ANATOMY)
    np.testing.assert_allclose(found.grid.affine, affine, atol=1e-5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_path_is_read(suffix: str, tmp_path: Path) -> None:
    tissue = noisy_tissue(16, 16, 3)
    path = tmp_path / f"scan{suffix}"
    nib.save(nib.Nifti1Image(tissue, LPS_AFFINE), path)
    np.testing.assert_array_equal(volume_of(path).voxels, tissue.T)
    assert volume_of(str(path), ScanOptions(scattered=True)).scattered


@pytest.mark.parametrize("index", [0, 5, 17, 30, 47])
def test_a_voxel_of_simpleitk_lies_where_simpleitk_says(index: int) -> None:
    array, affine = oriented(ORIENTATIONS[index], rotation(15, 20))
    image = image_of(array, affine)
    volume = volume_of(image)
    point = (2, 1, 3)
    left, back, up = image.TransformIndexToPhysicalPoint(point)
    np.testing.assert_allclose(volume.grid.affine @ [*point, 1], [-left, -back, up, 1], atol=1e-4)
    assert volume.grid.to_canonical(np.asarray(array)).tolist() == volume.voxels.tolist()


def test_the_scan_does_not_change_with_the_image() -> None:
    image = image_of(ANATOMY.T, LPS_AFFINE)
    volume = volume_of(image)
    image[0, 0, 0] = 1000
    np.testing.assert_array_equal(volume.voxels, ANATOMY)


@pytest.mark.parametrize(
    "image", [sitk.Image(8, 8, sitk.sitkInt16), sitk.Image([8, 8, 4], sitk.sitkVectorInt16, 3)], ids=["2D", "vectors"]
)
def test_an_image_of_simpleitk_without_three_axes_is_refused(image: Any) -> None:
    with pytest.raises(InputError, match="pass one 3D image") as refusal:
        volume_of(image)
    assert refusal.value.code == "E_NDIM"


def test_a_nifti_image_keeps_how_its_header_places_it(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ANATOMY.T, LPS_AFFINE)
    image.set_qform(LPS_AFFINE, code="scanner")
    image.set_sform(LPS_AFFINE, code="mni")
    volume = volume_of(image)
    write_mask(np.zeros(ANATOMY.shape, dtype=np.uint8), volume, tmp_path / "mask.nii")
    written = nib.load(tmp_path / "mask.nii").header
    assert (int(written["qform_code"]), int(written["sform_code"])) == (1, 4)


def test_a_file_gives_the_same_mask_file_by_its_path_and_as_an_image(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noisy_tissue(16, 16, 3), rotation(10, 25) @ LPS_AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4:] = 7
    path = tmp_path / "scan.nii"
    nib.save(image, path)
    for name, scan in (("path.nii", path), ("image.nii", nib.load(path))):
        volume = volume_of(scan)
        write_mask(np.zeros(volume.voxels.shape, np.uint8), volume, tmp_path / name)
    assert (tmp_path / "path.nii").read_bytes() == (tmp_path / "image.nii").read_bytes()


def test_the_file_of_a_nibabel_image_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "patient.nii"
    nib.save(nib.Nifti1Image(ANATOMY.T, LPS_AFFINE), path)
    volume = volume_of(nib.load(path))
    assert volume.name == "patient"
    with pytest.raises(OutputError, match="never overwritten"):
        write_mask(np.zeros(ANATOMY.shape, dtype=np.uint8), volume, path, overwrite=True)


@pytest.mark.parametrize(
    "scan", [None, 3, ANATOMY, [ANATOMY, LPS_AFFINE], (ANATOMY,), {"scan": 1}], ids=lambda scan: type(scan).__name__
)
def test_anything_else_is_refused_with_what_is_accepted(scan: Any) -> None:
    with pytest.raises(UsageError, match=r"^scan: got .* pass a path, \(array, affine\) .* or a Volume"):
        volume_of(scan)


def test_a_bare_array_is_told_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="an array alone does not say where it lies"):
        volume_of(ANATOMY)


@pytest.mark.parametrize("options", [ScanOptions(hu_offset=-1024), ScanOptions(volume=1), ScanOptions(strict=True)])
def test_options_for_files_are_refused_for_arrays(options: ScanOptions) -> None:
    with pytest.raises(UsageError, match=r"^reading: says how a file is read, but the scan is a tuple"):
        volume_of((ANATOMY.T, LPS_AFFINE), options)


def test_scattered_holds_for_arrays() -> None:
    assert volume_of((ANATOMY.T, LPS_AFFINE), ScanOptions(scattered=True)).scattered
