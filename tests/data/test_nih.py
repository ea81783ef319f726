"""NIH Pancreas-CT: series are found in any nesting, and labels are turned the way the scan lies."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cascade_rt.data.label_flip import choose_flip, flip_label
from cascade_rt.data.names import FLIPS, Flip
from cascade_rt.data.nih import find_nih_cases
from cascade_rt.errors import InputError
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import read_mask
from tests.data_trees import SHAPE, anatomy, nih_tree, write_nifti
from tests.dicom_files import axial_slices, write_series

NAMES = ["PANCREAS_0001", "PANCREAS_0002", "PANCREAS_0003"]


def only_problem(data: Path, labels: Path) -> str:
    (problem,) = find_nih_cases(data, labels).problems
    return problem


def test_nested_shuffled_series_and_their_labels_are_found_and_read(tmp_path: Path) -> None:
    listing = find_nih_cases(*nih_tree(tmp_path))
    assert [case.name for case in listing.cases] == NAMES
    hu, label = anatomy(2)
    listing.cases[1].check()
    found = listing.cases[1].read()
    np.testing.assert_array_equal(found.volume.voxels, hu)
    np.testing.assert_array_equal(found.label, label)
    assert (found.source["image"], found.source["label"]) == ("PANCREAS_0002", "label0002.nii.gz")
    assert found.source["label_flip"] == "y"
    assert found.warnings == ()


def test_labels_below_the_data_are_found_unasked(tmp_path: Path) -> None:
    nih_tree(tmp_path)
    assert [case.name for case in find_nih_cases(tmp_path).cases] == NAMES


def test_converted_scans_in_place_of_series_are_read(tmp_path: Path) -> None:
    hu, label = anatomy()
    write_nifti(tmp_path / "scans" / "PANCREAS_0001.nii.gz", hu)
    write_nifti(tmp_path / "scans" / "nih_pancreas-0002_0000.nii.gz", hu)
    write_nifti(tmp_path / "scans" / "PANCREAS_0003" / "converted" / "series 7.nii", hu)
    for number in (1, 2, 3):
        write_nifti(tmp_path / "labels" / f"label{number:04d}.nii.gz", label)
    listing = find_nih_cases(tmp_path / "scans", tmp_path / "labels")
    assert [case.name for case in listing.cases] == NAMES
    for case in listing.cases:
        case.check()
        np.testing.assert_array_equal(case.read().volume.voxels, hu)


def test_a_scan_without_label_is_a_problem(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path)
    (labels / "label0002.nii.gz").unlink()
    message = only_problem(data, labels)
    assert message.startswith("case PANCREAS_0002: has no label; put label0002.nii.gz beside the others, or remove")


@pytest.mark.parametrize(
    "name", ["PANCREAS_0001_20130515.nii.gz", "pancreas_002.nii.gz", "scan0002.nii.gz", "PANCREAS_0001_Pancreas_3.nii"]
)
def test_a_scan_whose_name_has_other_digits_is_a_problem(tmp_path: Path, name: str) -> None:
    data, labels = nih_tree(tmp_path)
    write_nifti(data / name, anatomy()[0])
    assert f"{name}: its name does not identify its case; rename it like PANCREAS_0001" in only_problem(data, labels)


def test_a_scan_in_the_folder_of_another_case_is_a_problem(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path, [1, 2])
    shutil.rmtree(data / "PANCREAS_0002")
    write_nifti(data / "PANCREAS_0002" / "PANCREAS_0001.nii.gz", anatomy()[0])
    assert "is in the folder of case 0002, but its name has a different number" in only_problem(data, labels)


def test_a_label_without_scan_is_left_out_and_it_is_said(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path)
    write_nifti(labels / "label0025.nii.gz", anatomy()[1])
    assert find_nih_cases(data, labels).notes == ["1 labels have no scan and are left out: label0025.nii.gz"]


def test_two_scans_of_one_number_are_a_problem(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path)
    write_nifti(data / "PANCREAS_0002.nii.gz", anatomy()[0])
    assert only_problem(data, labels).startswith("case PANCREAS_0002: has 2 scans")


def test_two_labels_of_one_number_are_a_problem(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path)
    write_nifti(labels / "more" / "label0002.nii", anatomy()[1])
    assert only_problem(data, labels).startswith("case PANCREAS_0002: has 2 labels")


def test_an_empty_case_folder_is_seen_in_the_check(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path, [1])
    (data / "PANCREAS_0002").mkdir()
    write_nifti(labels / "label0002.nii.gz", anatomy()[1])
    with pytest.raises(InputError, match=r"PANCREAS_0002: contains no CT series \(no DICOM files\)"):
        find_nih_cases(data, labels).cases[1].check()


def test_a_label_with_another_number_of_slices_is_seen_in_the_headers(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path)
    write_nifti(labels / "label0002.nii.gz", anatomy()[1][:-1])
    with pytest.raises(InputError, match=r"label0002.nii.gz: \(5, 20, 24\) voxels .* the scan has \(6, 20, 24\)"):
        find_nih_cases(data, labels).cases[1].check()


def test_a_lost_last_slice_shows_in_the_label(tmp_path: Path) -> None:
    # The series alone cannot tell: its other slices are evenly spaced.
    data, labels = nih_tree(tmp_path, [1])
    write_series(data / "PANCREAS_0002", axial_slices(anatomy(2)[0][:-1]))
    write_nifti(labels / "label0002.nii.gz", anatomy(2)[1])
    with pytest.raises(InputError, match="copy the whole series"):
        find_nih_cases(data, labels).cases[1].check()


def test_tumors_are_unknown_values(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path)
    write_nifti(labels / "label0002.nii.gz", anatomy(tumor=True)[1])
    with pytest.raises(InputError, match="contains unknown values 2; use 0 background, 1 pancreas"):
        find_nih_cases(data, labels).cases[1].read()


@pytest.mark.parametrize("missing", ["data", "labels"])
def test_a_missing_folder_is_refused(tmp_path: Path, missing: str) -> None:
    data, labels = nih_tree(tmp_path)
    folders = {"data": data, "labels": labels} | {missing: tmp_path / "nowhere"}
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_nih_cases(folders["data"], folders["labels"])


def test_a_folder_without_labels_points_to_the_option(tmp_path: Path) -> None:
    data, _ = nih_tree(tmp_path)
    with pytest.raises(InputError, match=r"contains no labels .*; set their folder with `labels`"):
        find_nih_cases(data)


def test_a_folder_without_scans_says_how_scans_look(tmp_path: Path) -> None:
    _, labels = nih_tree(tmp_path)
    with pytest.raises(InputError, match="contains no scans; provide DICOM files in folders PANCREAS_0001"):
        find_nih_cases(labels)


@pytest.mark.parametrize("flip", FLIPS)
def test_every_flip_of_a_label_is_recovered(flip: Flip) -> None:
    hu, label = anatomy()
    fit, warnings = choose_flip(hu, flip_label(label, flip))
    assert (fit.flip, warnings) == (flip, ())
    np.testing.assert_array_equal(flip_label(flip_label(label, flip), fit.flip), label)


def test_a_more_uniform_organ_does_not_attract_the_label() -> None:
    hu, label = anatomy()
    mirrored = np.flip(label, 2) > 0
    hu[:, 0:12, 11:24] = 100
    assert hu[mirrored].std() < hu[label > 0].std()
    assert choose_flip(hu, label)[0].flip == "none"


def test_a_flip_that_is_asked_for_is_applied_and_doubted_aloud() -> None:
    hu, label = anatomy()
    fit, warnings = choose_flip(hu, label, "z")
    assert fit.flip == "z"
    assert "this is unlikely to be a pancreas, inspect it before training" in warnings[0]


def test_a_best_flip_without_a_plausible_pancreas_is_a_warning() -> None:
    hu, label = anatomy()
    hu[label > 0] += np.random.default_rng(1).normal(0, 90, np.count_nonzero(label)).astype(np.int16)
    assert "inspect it before training" in choose_flip(hu, label)[1][0]


def test_two_flips_that_fit_alike_are_warned_of() -> None:
    hu, label = anatomy()
    hu[::-1][label > 0] = hu[label > 0]
    fit, (warning,) = choose_flip(hu, label)
    assert fit.flip in ("none", "z")
    assert f"fit almost equally well; used {fit.flip!r}" in warning


def test_a_label_on_no_soft_tissue_is_refused() -> None:
    with pytest.raises(InputError, match="no flip places its label on soft tissue"):
        choose_flip(np.full(SHAPE, -800, dtype=np.int16), anatomy()[1])


def test_an_empty_label_is_refused() -> None:
    with pytest.raises(InputError, match="its label is empty"):
        choose_flip(anatomy()[0], np.zeros(SHAPE, dtype=np.uint8))


# In case2 the mirrored label lies in the liver and varies less there than on the pancreas.
@pytest.mark.parametrize("name", ["case1", "case2"])
@pytest.mark.parametrize("flip", ["none", "x", "y", "xy"])
def test_flips_of_a_real_label_are_recovered(sample_ct: Path, name: str, flip: Flip) -> None:
    # The files hold 5 neighbouring slices, on which a flip along z changes little.
    folder = sample_ct / "nih_pancreas_ct"
    volume = read_volume(folder / f"{name}.nii.gz")
    label = read_mask(folder / f"{name}_label.nii.gz", like=volume)
    assert choose_flip(volume.voxels, flip_label(label, flip))[0].flip == flip


def test_cases_behind_links_are_found_once(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path / "archive")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in (*data.iterdir(), linked):
        (linked / path.name).symlink_to(path)
    assert [case.name for case in find_nih_cases(linked, labels).cases] == NAMES
