"""The pancreas task of the Decathlon is found under each name it has, and its problems are named by case."""

import json
from pathlib import Path

import numpy as np
import pytest

from cascade_rt.data.msd import find_msd_cases
from cascade_rt.errors import InputError
from tests.data_trees import LPS_AFFINE, anatomy, msd_tree, write_nifti

NAMES = ["pancreas_001", "pancreas_004", "pancreas_005"]


def names(root: Path) -> list[str]:
    listing = find_msd_cases(root)
    assert listing.problems == []
    return [case.name for case in listing.cases]


def only_problem(root: Path) -> str:
    (problem,) = find_msd_cases(root).problems
    return problem


def test_the_cases_of_dataset_json_are_found(tmp_path: Path) -> None:
    assert names(msd_tree(tmp_path)) == NAMES


def test_the_folder_around_the_data_set_will_do(tmp_path: Path) -> None:
    msd_tree(tmp_path / "Task07_Pancreas")
    assert names(tmp_path) == NAMES


@pytest.mark.parametrize("listed", [True, False])
def test_names_of_nnunet_are_found(tmp_path: Path, listed: bool) -> None:
    msd_tree(tmp_path / "Dataset007_Pancreas", suffix="_0000", listed=listed)
    assert names(tmp_path / "Dataset007_Pancreas") == NAMES


def test_without_dataset_json_names_are_paired(tmp_path: Path) -> None:
    assert names(msd_tree(tmp_path, listed=False)) == NAMES


def test_a_case_of_broken_links_is_not_left_out(tmp_path: Path) -> None:
    root = msd_tree(tmp_path, listed=False)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder / "pancreas_009.nii.gz").symlink_to("not_fetched")
    assert names(root) == [*NAMES, "pancreas_009"]


def test_the_dataset_json_of_nnunet_without_a_list_is_passed_over(tmp_path: Path) -> None:
    msd_tree(tmp_path, suffix="_0000", listed=False)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "numTraining": 3}))
    assert names(tmp_path) == NAMES


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"training": [{"label": "a"}]}', '{"training": [{"image": "imagesTr/1.nrrd"}]}', '{"training": 3}'],
)
def test_with_a_broken_dataset_json_names_are_paired_and_it_is_said(tmp_path: Path, content: str) -> None:
    msd_tree(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    assert names(tmp_path) == NAMES
    assert "scans and labels were paired by name" in find_msd_cases(tmp_path).notes[0]


@pytest.mark.parametrize("written", [".\\imagesTr\\{}.nii.gz", "imagesTr\\{}.nii.gz", "imagesTr/{}.nii.gz"])
def test_a_list_with_windows_separators_selects_the_same_cases(tmp_path: Path, written: str) -> None:
    msd_tree(tmp_path)
    entries = [{"image": written.format(name)} for name in NAMES[1:]]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}), encoding="utf-8-sig")
    assert names(tmp_path) == NAMES[1:]


def test_resource_forks_of_macos_are_skipped(tmp_path: Path) -> None:
    msd_tree(tmp_path, listed=False)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder / "._pancreas_001.nii.gz").write_bytes(b"Mac OS X")
    assert names(tmp_path) == NAMES


def test_a_scan_that_is_not_listed_is_left_out_and_it_is_said(tmp_path: Path) -> None:
    msd_tree(tmp_path)
    write_nifti(tmp_path / "imagesTr" / "pancreas_009.nii.gz", anatomy()[0])
    assert names(tmp_path) == NAMES
    assert "1 scans are not in dataset.json" in find_msd_cases(tmp_path).notes[0]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("folder", "what"), [("labelsTr", "label"), ("imagesTr", "scan")])
def test_half_a_case_is_a_problem(tmp_path: Path, listed: bool, folder: str, what: str) -> None:
    msd_tree(tmp_path, listed=listed)
    (tmp_path / folder / "pancreas_004.nii.gz").unlink()
    assert only_problem(tmp_path).startswith(f"case pancreas_004: has no {what} in {folder}; copy it there")


def test_two_scans_of_one_name_are_a_problem(tmp_path: Path) -> None:
    msd_tree(tmp_path)
    write_nifti(tmp_path / "imagesTr" / "pancreas_004.nii", anatomy()[0])
    assert "case pancreas_004: has 2 scans, pancreas_004.nii and pancreas_004.nii.gz" in only_problem(tmp_path)


def test_a_case_listed_twice_is_a_problem(tmp_path: Path) -> None:
    msd_tree(tmp_path, [1, 4, 4])
    assert only_problem(tmp_path) == "case pancreas_004: is listed twice in dataset.json"


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no imagesTr; choose the folder with imagesTr and labelsTr"):
        find_msd_cases(tmp_path)


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match="contains no cases; download the data set again"):
        find_msd_cases(tmp_path)


def test_labels_may_be_elsewhere(tmp_path: Path) -> None:
    msd_tree(tmp_path / "task")
    (tmp_path / "task" / "labelsTr").rename(tmp_path / "mine")
    with pytest.raises(InputError, match="choose the label folder with `labels`"):
        find_msd_cases(tmp_path / "task")
    assert len(find_msd_cases(tmp_path / "task", tmp_path / "mine").cases) == 3


def test_a_case_is_read_into_the_canonical_frame(tmp_path: Path) -> None:
    case = find_msd_cases(msd_tree(tmp_path)).cases[1]
    hu, label = anatomy(4, tumor=True)
    case.check()
    found = case.read()
    np.testing.assert_array_equal(found.volume.voxels, hu)
    np.testing.assert_array_equal(found.label, label)
    assert found.source["image"] == "pancreas_004.nii.gz"


def test_a_label_of_another_shape_is_seen_in_the_headers(tmp_path: Path) -> None:
    msd_tree(tmp_path)
    write_nifti(tmp_path / "labelsTr" / "pancreas_004.nii.gz", anatomy()[1][:-1])
    with pytest.raises(InputError, match=r"has shape \(5, 20, 24\), but the scan has \(6, 20, 24\)"):
        find_msd_cases(tmp_path).cases[1].check()


def test_a_label_at_another_place_is_seen_in_the_headers(tmp_path: Path) -> None:
    msd_tree(tmp_path)
    write_nifti(tmp_path / "labelsTr" / "pancreas_004.nii.gz", anatomy()[1], LPS_AFFINE @ np.diag([1, -1, 1, 1]))
    with pytest.raises(InputError, match="mm off the grid of the scan"):
        find_msd_cases(tmp_path).cases[1].check()


def test_unknown_label_values_are_named(tmp_path: Path) -> None:
    msd_tree(tmp_path)
    label = anatomy()[1]
    label[4, 4, 4:6] = (3, 17)
    write_nifti(tmp_path / "labelsTr" / "pancreas_004.nii.gz", label)
    with pytest.raises(InputError, match="contains unknown values 3, 17; use 0 background, 1 pancreas, 2"):
        find_msd_cases(tmp_path).cases[1].read()


def listed_with_labels(root: Path, labels: dict[str, str]) -> None:
    entries = [{"image": f"imagesTr/{name}.nii", "label": f"labelsTr/{label}.nii"} for name, label in labels.items()]
    (root / "dataset.json").write_text(json.dumps({"training": entries}))


def test_the_label_that_is_listed_is_that_of_the_case(tmp_path: Path) -> None:
    msd_tree(tmp_path)
    listed_with_labels(tmp_path, dict(zip(NAMES, reversed(NAMES), strict=True)))
    listing = find_msd_cases(tmp_path)
    assert listing.problems == []
    np.testing.assert_array_equal(listing.cases[0].read().label, anatomy(5, tumor=True)[1])


def test_a_listed_label_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    msd_tree(tmp_path)
    listed_with_labels(tmp_path, {NAMES[0]: NAMES[0], NAMES[1]: "corrected_004"})
    assert only_problem(tmp_path).startswith("case pancreas_004: has no label in labelsTr")


def test_a_label_that_is_listed_for_two_cases_is_a_problem(tmp_path: Path) -> None:
    msd_tree(tmp_path)
    listed_with_labels(tmp_path, {NAMES[0]: NAMES[0], NAMES[1]: NAMES[0]})
    assert find_msd_cases(tmp_path).problems == [
        f"case {name}: has the label of another case in dataset.json" for name in NAMES[:2]
    ]


def test_a_case_with_broken_links_is_not_left_out(tmp_path: Path) -> None:
    msd_tree(tmp_path, listed=False)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder / "pancreas_009.nii.gz").symlink_to(tmp_path / "unmounted")
    case = find_msd_cases(tmp_path).cases[-1]
    with pytest.raises(InputError, match=r"pancreas_009\.nii\.gz: the file does not exist"):
        case.check()


@pytest.mark.parametrize(
    "labels",
    [{"0": "background", "1": "cancer", "2": "pancreas"}, {"background": 0, "tumor": 1, "pancreas": 2}],
    ids=["as the Decathlon", "as nnU-Net"],
)
def test_labels_that_mean_something_else_are_a_problem(tmp_path: Path, labels: dict[str, object]) -> None:
    msd_tree(tmp_path, listed=False)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert only_problem(tmp_path).startswith("dataset.json says that label 1 is ")


@pytest.mark.parametrize(
    "labels",
    [{"0": "background", "1": "pancreas", "2": "cancer"}, {"background": 0, "pancreas": 1, "tumor": 2}],
    ids=["as the Decathlon", "as nnU-Net"],
)
def test_labels_that_mean_pancreas_and_tumor_are_taken(tmp_path: Path, labels: dict[str, object]) -> None:
    msd_tree(tmp_path, listed=False)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert names(tmp_path) == NAMES


@pytest.mark.parametrize(("key", "folder"), [("image", "imagesTr"), ("label", "labelsTr")])
def test_a_file_that_is_listed_in_another_folder_is_a_problem(tmp_path: Path, key: str, folder: str) -> None:
    msd_tree(tmp_path)
    entry = {"image": f"./imagesTr/{NAMES[0]}.nii.gz", "label": f"./labelsTr/{NAMES[0]}.nii.gz"}
    entry[key] = f"./corrected/{NAMES[0]}.nii.gz"
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry]}))
    assert only_problem(tmp_path).startswith(f"dataset.json lists {entry[key]}, but files are read from {folder}")
