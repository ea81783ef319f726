"""Scans and labels of one's own, two folders of them, become cases of a store."""

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.data.case_pairs import LabelValues
from cascade_rt.data.folder import find_folder_cases
from cascade_rt.data.prepare import SplitRequest, prepare_cases
from cascade_rt.data.slices import has_tumor, open_cases
from cascade_rt.data.split import Split, draw_split, read_case_list, read_split
from cascade_rt.errors import InputError, PartialFailureError, UsageError
from cascade_rt.scans.nifti.options import ScanOptions
from tests.data_trees import anatomy, write_nifti
from tests.volume_files import unplaced

NAMES = ("p1_a", "p1_b", "p2_a", "p3_a", "p3_b")


def write_pairs(root: Path, names: tuple[str, ...] = NAMES, organ: int = 6, tumor: int = 9) -> tuple[Path, Path]:
    for number, name in enumerate(names):
        hu, label = anatomy(number, tumor=True)
        write_nifti(root / "images" / f"{name}_0000.nii.gz", hu)
        write_nifti(root / "labels" / f"{name}.nii.gz", np.array([0, organ, tumor], dtype=np.uint8)[label])
    return root / "images", root / "labels"


def test_numbers_of_the_labels_are_translated_and_others_are_background(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data")
    listing = find_folder_cases(images, labels, LabelValues(organ=(6,)))
    done = prepare_cases(listing, tmp_path / "store", SplitRequest("folder", 0.2))
    assert done.converted == list(NAMES)
    (case,) = open_cases(tmp_path / "store", ["p1_a"])
    _, truth = anatomy(0, tumor=True)
    assert np.array_equal(np.sort(case.label, axis=None), np.sort(truth == 1, axis=None))
    assert not has_tumor(case)


def test_tumors_are_kept_if_their_label_is_selected(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    listing = find_folder_cases(images, labels, LabelValues((6,), (9,)))
    prepare_cases(listing, tmp_path / "store", SplitRequest("folder", 0.5))
    assert all(has_tumor(case) for case in open_cases(tmp_path / "store", ["a", "b"]))


def test_a_store_records_which_cases_have_scattered_slices(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    for scattered in (False, True):
        store = tmp_path / f"store_{scattered}"
        listing = find_folder_cases(images, labels, LabelValues((6,)), ScanOptions(scattered=scattered))
        prepare_cases(listing, store, SplitRequest("folder", 0.5))
        assert [case.scattered for case in open_cases(store, ["a", "b"])] == [scattered] * 2


def test_labels_without_the_selected_numbers_are_refused_with_their_own(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    with pytest.raises(PartialFailureError, match="contains labels 6, 9, none of them selected"):
        prepare_cases(find_folder_cases(images, labels), tmp_path / "store", SplitRequest("folder", 0.5))


def test_an_unselected_label_touching_the_pancreas_is_reported(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    listing = find_folder_cases(images, labels, LabelValues((6,)))
    warnings = prepare_cases(listing, tmp_path / "store", SplitRequest("folder", 0.5)).warnings
    told = [warning for warning in warnings if "touch" in warning]
    assert [warning.split(" the pancreas")[0] for warning in told] == [
        "case a: its label 9 touches",
        "case b: its label 9 touches",
    ]


def test_an_unselected_label_elsewhere_is_not_reported(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    for name in ("a", "b"):
        _, label = anatomy(0)
        label[label > 0] = 6
        label[5, 15:18, 15:18] = 9
        write_nifti(labels / f"{name}.nii.gz", label)
    listing = find_folder_cases(images, labels, LabelValues((6,)))
    warnings = prepare_cases(listing, tmp_path / "store", SplitRequest("folder", 0.5)).warnings
    assert not any("touch" in warning for warning in warnings)


def test_a_case_is_not_kept_if_other_labels_are_selected(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    request = SplitRequest("folder", 0.5)
    prepare_cases(find_folder_cases(images, labels, LabelValues((6,))), tmp_path / "store", request)
    with pytest.raises(UsageError, match=r"case b: was made with tumor \[\] instead of \[9\]"):
        prepare_cases(find_folder_cases(images, labels, LabelValues((6,), (9,))), tmp_path / "store", request)


def test_labels_without_orientation_lie_on_scans_without_orientation(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    for path in (*images.iterdir(), *labels.iterdir()):
        path.write_bytes(unplaced(gzip.decompress(path.read_bytes())))
    reading = ScanOptions(assume_orientation="LPS")
    listing = find_folder_cases(images, labels, LabelValues((6, 9)), reading)
    prepare_cases(listing, tmp_path / "store", SplitRequest("folder", 0.5))
    hu, label = anatomy(0, tumor=True)
    (case,) = open_cases(tmp_path / "store", ["a"])
    np.testing.assert_array_equal(case.label > 0, label > 0)
    np.testing.assert_array_equal(case.image, hu)


def test_scans_are_checked_as_they_will_be_read(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    for path in images.iterdir():
        hu = np.asarray(nib.load(path).dataobj)
        nib.save(nib.Nifti1Image(np.stack([hu, hu], axis=-1), nib.load(path).affine), path)
    listing = find_folder_cases(images, labels, LabelValues((6, 9)), ScanOptions(volume=1))
    assert prepare_cases(listing, tmp_path / "store", SplitRequest("folder", 0.5)).converted == ["a", "b"]


def test_a_label_on_another_grid_stops_before_anything_is_converted(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data", ("a", "b"))
    _, label = anatomy(1)
    write_nifti(labels / "b.nii.gz", label[:-1].astype(np.uint8))
    with pytest.raises(InputError, match=r"case b: .*the scan has .*\(nothing was converted\)"):
        prepare_cases(find_folder_cases(images, labels), tmp_path / "store", SplitRequest("folder", 0.5))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("organ", "tumor", "message"),
    [
        ((1,), (1,), "must not repeat, got pancreas"),
        ((), (2,), "must be numbers from 1 to 255"),
        ((0,), (), "must be numbers from 1 to 255"),
        ((256,), (), "must be numbers from 1 to 255"),
    ],
)
def test_label_values_that_make_no_sense_are_refused(
    organ: tuple[int, ...], tumor: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        LabelValues(organ, tumor)


def test_patients_stay_whole_in_a_drawn_split() -> None:
    for seed in range(10):
        split = draw_split("folder", NAMES, 1, seed, patients=r"p\d")
        sides = [{name[:2] for name in part} for part in (split.train, split.test)]
        assert sides[0].isdisjoint(sides[1])
        assert len(sides[1]) == 1


def test_a_pattern_that_names_no_patient_is_refused() -> None:
    with pytest.raises(UsageError, match="does not match case name p1_a"):
        draw_split("folder", NAMES, 1, 0, patients=r"q\d")
    with pytest.raises(UsageError, match="is not a regular expression"):
        draw_split("folder", NAMES, 1, 0, patients="(")


def test_a_pattern_that_matches_nothing_of_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="does not match case name q"):
        draw_split("folder", ("p1_a", "p2_a", "q"), 1, 0, patients=r"(p\d)?")


def prepared(root: Path, request: SplitRequest) -> Split:
    images, labels = root / "data" / "images", root / "data" / "labels"
    if not images.exists():
        write_pairs(root / "data")
    return prepare_cases(find_folder_cases(images, labels, LabelValues((6, 9))), root / "store", request).split


def test_a_split_knows_what_its_patients_are(tmp_path: Path) -> None:
    drawn = prepared(tmp_path, SplitRequest("folder", 0.2, patients=r"p\d"))
    assert read_split(tmp_path / "store", "folder") == drawn
    assert drawn.patients == r"p\d"


def test_an_existing_split_that_divides_a_patient_is_refused(tmp_path: Path) -> None:
    given = tmp_path / "mine.json"
    given.write_text(json.dumps({"train": ["p3_b", "p1_a", "p1_b"], "test": ["p2_a", "p3_a"]}))
    prepared(tmp_path, SplitRequest("folder", 0.2, given=given))
    with pytest.raises(UsageError, match=r"split.json: patient p3 is in both .* p3_b \(train\) and p3_a \(test\)"):
        prepared(tmp_path, SplitRequest("folder", 0.2, patients=r"p\d"))


def test_a_given_split_that_divides_a_patient_is_refused(tmp_path: Path) -> None:
    given = tmp_path / "mine.json"
    given.write_text(json.dumps({"train": ["p3_b", "p1_a", "p1_b"], "test": ["p2_a", "p3_a"]}))
    with pytest.raises(UsageError, match=r"mine.json: patient p3 is in both parts"):
        prepared(tmp_path, SplitRequest("folder", 0.2, given=given, patients=r"p\d"))


def test_another_number_of_test_patients_is_refused(tmp_path: Path) -> None:
    prepared(tmp_path, SplitRequest("folder", 0.2, test_cases=1, patients=r"p\d"))
    with pytest.raises(UsageError, match="does not match 2 test patients"):
        prepared(tmp_path, SplitRequest("folder", 0.2, test_cases=2, patients=r"p\d"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_as_list_of_cases_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.json")
    with pytest.raises(UsageError, match="is a pipe or a device, not a regular file"):
        read_case_list(tmp_path / "list.json", "folder", ["a", "b"])


def test_a_list_written_on_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('{"train": ["a"], "test": ["b"]}', encoding="utf-8-sig")
    assert read_case_list(path, "folder", ["a", "b"]).train == ("a",)


def test_a_split_of_ones_own_is_kept(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data")
    given = tmp_path / "mine.json"
    given.write_text(json.dumps({"train": ["p3_b", "p1_a", "p1_b"], "test": ["p2_a", "p3_a"]}))
    listing = find_folder_cases(images, labels, LabelValues((6,)))
    prepare_cases(listing, tmp_path / "store", SplitRequest("folder", 0.2, given=given))
    wanted = Split("folder", None, ("p1_a", "p1_b", "p3_b"), ("p2_a", "p3_a"))
    assert read_split(tmp_path / "store", "folder") == wanted
    assert str(wanted) == "3 training and 2 test cases, split as listed"
    given.write_text(json.dumps({"train": ["p1_a", "p1_b"], "test": ["p2_a", "p3_a", "p3_b"]}))
    with pytest.raises(UsageError, match="does not match the cases of"):
        prepare_cases(listing, tmp_path / "store", SplitRequest("folder", 0.2, given=given))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": ["a"], "test": ["b"]}', "does not list c"),
        ('{"train": ["a", "c"], "test": ["b", "d"]}', "lists unknown cases d"),
        ('{"train": ["a", "b"], "test": ["b", "c"]}', "a case is listed twice"),
        ('{"train": ["a", "b", "c"], "test": []}', "a part is empty"),
        ('{"train": ["a", "b", "c"]}', "is not a list of cases"),
        ("[]", "is not a list of cases"),
        ('{"train": "ab", "test": ["c"]}', "a part is not a list of names"),
        ('{"train": ["a", "b", 3], "test": ["c"]}', "a part is not a list of names"),
        pytest.param("[" * 100_000, "is not a list of cases", id="deep"),
        ("", "is not a list of cases"),
    ],
)
def test_an_invalid_split_of_the_cases_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_case_list(path, "folder", ["a", "b", "c"])
