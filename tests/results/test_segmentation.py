"""The status tells the gravest doubt, the report agrees with the mask, and no file is overwritten unasked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from cascade_rt.common.hashing import FileRecord
from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.config import CascadeConfig
from cascade_rt.errors import InputWarning, OutputError, OutputExistsError, UsageError
from cascade_rt.models.crop import Box
from cascade_rt.results.measurements import Measurements, measure
from cascade_rt.results.segmentation import PLAUSIBLE_ORGAN_ML, STATUS_SENTENCES, Segmentation, Status, judge
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import Volume
from tests.volume_files import ORIENTATIONS, in_every_orientation, oriented, rotation

Mask = npt.NDArray[np.uint8]

SHAPE = (8, 20, 24)
# Axes to the right, anterior and superior: no axis of the file is one of the canonical frame as it stands.
AFFINE = np.array([[4.0, 0, 0, -50], [0, 5.0, 0, -40], [0, 0, 6.0, -90], [0, 0, 0, 1]])
VOXEL_ML = 0.12


def organ_mask(tumor: bool = True) -> Mask:
    """A plausible organ inside the scan: 480 voxels, 57.6 ml; 36 of them tumor where asked for."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1:7, 4:12, 6:16] = ORGAN_LABEL
    if tumor:
        mask[2:5, 6:9, 8:12] = TUMOR_LABEL
    return mask


def segmentation(mask: Mask, **changes: Any) -> Segmentation:
    volume = Volume.from_array(np.zeros(SHAPE[::-1], dtype=np.int16), AFFINE, name="case_7")
    found = measure(mask, volume.affine, volume.voxel_volume_ml)
    facts: dict[str, Any] = {
        "volume": volume,
        "mask": mask,
        "status": judge(mask, found, CascadeConfig()),
        "measurements": found,
        "boxes": {3: Box(0, 4, 64, 64), 2: Box(1, 2, 64, 96)},
        "warnings": (InputWarning("W_UNITS", "mm are assumed"),),
        "timings": {"stage1": 0.5},
        "provenance": {"bundle": {"name": "small", "sha256": "ab", "intended_use": "Research only."}, "numpy": "2"},
    }
    return Segmentation(**(facts | changes))


def judged(mask: Mask, organ_ml: float = 60.0, **config: Any) -> Status:
    tumor_ml = VOXEL_ML * np.count_nonzero(mask == TUMOR_LABEL)
    pancreas_ml = organ_ml - tumor_ml if (mask == ORGAN_LABEL).any() else 0.0
    found = Measurements(organ_ml, pancreas_ml, tumor_ml, organ_slices=0, tumor_slices=0, lesions=())
    return judge(mask, found, CascadeConfig(**config))


def test_tumor_without_any_pancreas_has_the_status_no_organ() -> None:
    assert judged(np.where(organ_mask() > 0, TUMOR_LABEL, 0).astype(np.uint8)) == "no_organ"


def report(**changes: Any) -> dict[str, Any]:
    """The report as a reader of the file sees it."""
    found: dict[str, Any] = json.loads(json.dumps(segmentation(organ_mask(), **changes).to_json(), allow_nan=False))
    return found


# Status


def test_organ_with_tumor_is_ok() -> None:
    assert judged(organ_mask()) == "ok"


def test_organ_without_tumor_has_the_status_no_tumor() -> None:
    assert judged(organ_mask(tumor=False)) == "no_tumor"


def test_only_the_organ_is_described_if_no_tumor_was_sought() -> None:
    assert judged(organ_mask(tumor=False), target="organ") == "organ_only"


@pytest.mark.parametrize(("tumor", "status"), [(True, "tumor_only"), (False, "no_tumor_only")])
def test_without_a_stage_1_nothing_is_said_of_the_organ(tumor: bool, status: Status) -> None:
    mask = organ_mask(tumor=tumor)
    mask[mask == ORGAN_LABEL] = 0
    assert judged(mask, 0.0, stage1="none", saliency=False) == status


def test_an_empty_mask_has_the_status_no_organ() -> None:
    assert judged(np.zeros(SHAPE, dtype=np.uint8), 0.0) == "no_organ"


@pytest.mark.parametrize("organ_ml", [0.1, 9.99, 250.01, 4000.0])
def test_organ_too_small_or_too_large_is_implausible(organ_ml: float) -> None:
    assert judged(organ_mask(), organ_ml) == "implausible_organ"


@pytest.mark.parametrize("organ_ml", PLAUSIBLE_ORGAN_ML)
def test_organ_at_the_limits_is_plausible(organ_ml: float) -> None:
    assert judged(organ_mask(), organ_ml) == "ok"


@pytest.mark.parametrize("label", [ORGAN_LABEL, TUMOR_LABEL])
@pytest.mark.parametrize(("axis", "end"), [(axis, end) for axis in range(3) for end in (0, -1)])
def test_organ_at_a_border_of_the_scan_touches_it(axis: int, end: int, label: int) -> None:
    mask = organ_mask()
    place: list[int] = [4, 9, 11]
    place[axis] = end
    mask[tuple(place)] = label
    assert judged(mask) == "organ_touches_border"


def test_organ_one_voxel_off_every_border_does_not_touch() -> None:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1:-1, 1:-1, 1:-1] = ORGAN_LABEL
    assert judged(mask) == "no_tumor"


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("end", [0, -1])
def test_a_small_pancreas_at_the_scan_border_is_not_implausible(axis: int, end: int) -> None:
    mask = organ_mask()
    np.moveaxis(mask, axis, 0)[end] = mask.max(axis=axis)
    assert judged(mask, 4.0) == "organ_touches_border"


def test_a_volume_too_large_is_graver_than_the_border() -> None:
    assert judged(np.full(SHAPE, ORGAN_LABEL, dtype=np.uint8), 400.0) == "implausible_organ"


def test_border_is_graver_than_a_missing_tumor() -> None:
    mask = organ_mask(tumor=False)
    mask[0] = mask[1]
    assert judged(mask) == "organ_touches_border"


def test_every_status_has_a_sentence() -> None:
    assert set(STATUS_SENTENCES) == set(get_args(Status))


# Report


def test_volumes_of_the_report_are_those_of_the_mask() -> None:
    volumes = report()["volumes_ml"]
    expected = {"organ": 480 * VOXEL_ML, "pancreas": 444 * VOXEL_ML, "tumor": 36 * VOXEL_ML}
    assert volumes == pytest.approx(expected)


@pytest.mark.parametrize("status", ["tumor_only", "no_tumor_only"])
def test_volumes_of_a_pancreas_that_was_not_sought_are_unknown(status: Status) -> None:
    found = report(status=status)
    assert (found["volumes_ml"]["organ"], found["volumes_ml"]["pancreas"], found["slices"]["with_organ"]) == (None,) * 3
    assert found["volumes_ml"]["tumor"] > 0


def test_lesions_of_the_report_add_up_to_the_tumor() -> None:
    found = report()
    assert sum(lesion["volume_ml"] for lesion in found["lesions"]) == pytest.approx(found["volumes_ml"]["tumor"])


def test_lesion_of_the_report_lies_where_the_file_has_it() -> None:
    # Columns run to the left and rows to the back, so that both count down on the file's own axes.
    i, j, k = 23 - 9.5, 19 - 7.0, 3.0
    assert report()["lesions"][0]["center_mm"] == pytest.approx([4 * i - 50, 5 * j - 40, 6 * k - 90])


def test_slices_of_the_report_are_those_of_the_mask() -> None:
    slices = {
        "total": 8,
        "scattered": False,
        "without_organ_in_stage1": 0,
        "sent_to_stage2": 2,
        "with_organ": 6,
        "with_tumor": 3,
    }
    assert report()["slices"] == slices


def test_boxes_of_the_report_are_in_the_order_of_the_slices() -> None:
    assert report()["boxes"] == [
        {"slice": 2, "row": 1, "col": 2, "height": 64, "width": 96},
        {"slice": 3, "row": 0, "col": 4, "height": 64, "width": 64},
    ]


def test_geometry_of_the_report_is_that_of_the_canonical_frame() -> None:
    geometry = report()["geometry"]
    assert (geometry["shape"], geometry["spacing_mm"]) == ([8, 20, 24], pytest.approx([6.0, 5.0, 4.0]))


def test_the_report_has_the_grid_of_the_file_too() -> None:
    assert report()["geometry"]["file"] == {"shape": [24, 20, 8], "affine": AFFINE.tolist(), "orientation": "RAS"}


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL", "ARI"])
def test_the_orientation_of_the_file_is_the_one_nibabel_tells(codes: str) -> None:
    affine = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (4, 5, 6))
    volume = Volume.from_array(np.zeros((4, 5, 6), np.int16), np.linalg.inv(affine))
    found = segmentation(organ_mask(), volume=volume).to_json()["geometry"]["file"]["orientation"]
    assert found == "".join(nib.aff2axcodes(volume.grid.affine))


def test_files_of_the_report_are_those_it_came_from_and_went_to() -> None:
    assert (report()["input"], report()["output"]) == (None, None)
    found = replace(segmentation(organ_mask()), input_file=FileRecord("a", 1), mask_file=FileRecord("b", 2)).to_json()
    assert (found["input"], found["output"]) == ({"sha256": "a", "bytes": 1}, {"sha256": "b", "bytes": 2})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("report_version", 3),
        ("case", "case_7"),
        ("status", "ok"),
        ("intended_use", "Research only."),
        ("warnings", [{"code": "W_UNITS", "message": "mm are assumed"}]),
        ("timings_s", {"stage1": 0.5}),
    ],
)
def test_report_tells_how_the_run_went(key: str, value: object) -> None:
    assert report()[key] == value


def test_report_tells_what_computed_the_mask() -> None:
    assert report()["provenance"]["bundle"]["sha256"] == "ab"


def test_report_of_an_empty_mask_can_be_written_as_json() -> None:
    found = segmentation(np.zeros(SHAPE, dtype=np.uint8)).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_report_holds_no_array() -> None:
    probabilities = np.zeros(SHAPE, dtype=np.float32)
    assert report(organ_prob=probabilities, tumor_prob=probabilities) == report()


def test_timings_are_added_to_those_already_there() -> None:
    timed = segmentation(organ_mask()).with_timings({"save": 0.25})
    assert timed.timings == {"stage1": 0.5, "save": 0.25}


def test_adding_timings_leaves_the_original() -> None:
    original = segmentation(organ_mask())
    original.with_timings({"save": 0.25})
    assert original.timings == {"stage1": 0.5}


# Files


def test_saved_mask_has_the_affine_of_the_scan(tmp_path: Path) -> None:
    segmentation(organ_mask()).save(tmp_path / "mask.nii.gz")
    assert np.allclose(nib.load(tmp_path / "mask.nii.gz").affine, AFFINE)


def test_saved_mask_has_the_voxels_on_the_grid_of_the_scan(tmp_path: Path) -> None:
    segmentation(organ_mask()).save(tmp_path / "mask.nii.gz")
    saved = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    assert np.array_equal(saved, organ_mask().T[::-1, ::-1])


def test_saved_report_is_the_report(tmp_path: Path) -> None:
    segmentation(organ_mask()).save_report(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report()


def test_saved_report_keeps_letters_of_any_language(tmp_path: Path) -> None:
    segmentation(organ_mask(), warnings=(InputWarning("W_THICK", "größer als üblich"),)).save_report(
        tmp_path / "report.json"
    )
    assert "größer als üblich" in (tmp_path / "report.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("method", "name"), [("save", "out.nii.gz"), ("save_report", "out.json")])
def test_an_existing_file_is_not_overwritten_by_default(tmp_path: Path, method: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(OutputExistsError, match="already exists"):
        getattr(segmentation(organ_mask()), method)(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"old"


@pytest.mark.parametrize(("method", "name"), [("save", "out.nii.gz"), ("save_report", "out.json")])
def test_an_existing_file_is_overwritten_if_requested(tmp_path: Path, method: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"old")
    getattr(segmentation(organ_mask()), method)(tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"old"


@pytest.mark.parametrize(("method", "name"), [("save", "out.nii.gz"), ("save_report", "out.json")])
def test_a_file_in_a_missing_folder_is_refused(tmp_path: Path, method: str, name: str) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        getattr(segmentation(organ_mask()), method)(tmp_path / "nowhere" / name)


def test_a_bundle_that_does_not_look_for_tumors_says_nothing_of_them() -> None:
    report = segmentation(np.zeros(SHAPE, dtype=np.uint8), tumor_sought=False).to_json()
    assert (report["volumes_ml"]["tumor"], report["slices"]["with_tumor"]) == (None, None)


# On the grid of the scan


def marked(orientation: npt.NDArray[np.int_]) -> tuple[Segmentation, npt.NDArray[np.int16]]:
    """A segmentation whose mask and probabilities are the voxels of its scan, stored in some orientation."""
    array, affine = oriented(orientation, np.eye(4))
    volume = Volume.from_array(array, affine)
    prob = volume.voxels.astype(np.float32)
    mask = (volume.voxels % 256).astype(np.uint8)
    return replace(segmentation(organ_mask()), volume=volume, mask=mask, organ_prob=prob, tumor_prob=-prob), array


@in_every_orientation
def test_on_the_grid_everything_lies_on_the_array_that_was_given(orientation: npt.NDArray[np.int_]) -> None:
    found, array = marked(orientation)
    placed = found.on_grid()
    np.testing.assert_array_equal(placed.mask, (array % 256).astype(np.uint8))
    np.testing.assert_array_equal(placed.organ_prob, array)
    np.testing.assert_array_equal(placed.tumor_prob, -array)
    np.testing.assert_array_equal(placed.affine, oriented(orientation, np.eye(4))[1])


def test_probabilities_that_were_not_kept_are_not_on_the_grid() -> None:
    assert segmentation(organ_mask()).on_grid().organ_prob is None


@pytest.mark.parametrize("unit", ["mm", "meter"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_an_image_for_nibabel_lies_on_the_scan_as_nibabel_reads_it(kind: type, unit: str, tmp_path: Path) -> None:
    array, affine = oriented(ORIENTATIONS[13], rotation(20, 15))
    scan = kind(array, np.diag([{"mm": 1, "meter": 1e-3}[unit]] * 3 + [1]) @ affine)
    scan.header.set_xyzt_units(unit)
    scan.to_filename(tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii", ScanOptions(assume_hu=True))
    found = replace(segmentation(organ_mask()), volume=volume, mask=(volume.voxels % 256).astype(np.uint8))
    image = found.to_nibabel()
    assert type(image) is kind
    np.testing.assert_array_equal(np.asarray(image.dataobj), (array % 256).astype(np.uint8))
    np.testing.assert_array_equal(image.affine, nib.load(tmp_path / "scan.nii").affine)


def test_an_image_for_nibabel_is_what_is_saved(tmp_path: Path) -> None:
    found, _ = marked(ORIENTATIONS[5])
    found.save(tmp_path / "mask.nii")
    assert found.to_nibabel().to_bytes() == (tmp_path / "mask.nii").read_bytes()


def test_probabilities_are_an_image_of_real_numbers() -> None:
    found, array = marked(ORIENTATIONS[5])
    image = found.to_nibabel("tumor_prob")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.get_fdata(), -array)


@pytest.mark.parametrize(
    ("which", "message"), [("organ_prob", "keep_probabilities=True"), ("lesions", "does not exist")]
)
def test_a_missing_file_is_not_an_image(which: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        segmentation(organ_mask()).to_nibabel(which)
