"""Scans and labels are paired by name, never by guess, and what cannot be evaluated is found before the work begins."""

from pathlib import Path

import numpy as np
import pytest

from cascade_rt.data.case_pairs import CasePair, check_pairs, pair_cases
from cascade_rt.errors import InputError
from cascade_rt.scans.nifti.options import ScanOptions
from tests.cohort_files import AFFINE, block, save_cohort, save_labels, truncate
from tests.volume_files import patched

ORGAN, TUMOR = block((1, 2, 3)), block((1, 2, 3), label=2)


def folders(root: Path, images: list[str], labels: list[str]) -> tuple[Path, Path]:
    """Two folders of empty files."""
    for folder, names in (("images", images), ("labels", labels)):
        (root / folder).mkdir()
        for name in names:
            (root / folder / name).touch()
    return root / "images", root / "labels"


def pairs_of(root: Path) -> tuple[CasePair, ...]:
    return pair_cases(root / "images", root / "labels")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.nii.gz", "a.nii.gz"),
        ("a.nii", "a.nii.gz"),
        ("a_0000.nii.gz", "a.nii.gz"),
        ("a_0000.nii.gz", "a_0000.nii.gz"),
        ("A.NII", "A.NII"),
    ],
)
def test_an_image_and_a_label_of_one_name_are_a_pair(image: str, label: str, tmp_path: Path) -> None:
    images, labels = folders(tmp_path, [image], [label])
    (pair,) = pair_cases(images, labels)
    assert (pair.image, pair.label) == (images / image, labels / label)


def test_pairs_are_sorted_and_named_like_the_label(tmp_path: Path) -> None:
    pairs = pair_cases(*folders(tmp_path, ["b_0000.nii", "a_0000.nii"], ["b.nii.gz", "a.nii.gz"]))
    assert [pair.name for pair in pairs] == ["a", "b"]


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    pairs = pair_cases(*folders(tmp_path, ["a.nii", "._a.nii", "dataset.json"], ["a.nii", "._b.nii"]))
    assert [pair.name for pair in pairs] == ["a"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a.nii", "b.nii"], ["a.nii"], "images without a label: b; give an image and its label the same name"),
        (["a.nii"], ["a.nii", "b.nii"], "labels without an image: b;"),
        (["a.nii"], ["b.nii"], "images without a label: a; labels without an image: b;"),
        (["PANCREAS_0001.nii"], ["label0001.nii"], "without a label: PANCREAS_0001; .*: label0001;"),
        (["a_0001.nii"], ["a.nii"], "images without a label: a_0001; labels without an image: a;"),
        ([f"{n}.nii" for n in range(8)], ["0.nii"], "images without a label: 1, 2, 3, 4, 5 and 2 more;"),
        (["a.nii", "a_0000.nii"], ["a.nii"], r"a\.nii and .*a_0000\.nii both belong to .*a\.nii; remove one of them"),
        (["a.nii", "a.nii.gz"], ["a.nii"], r"a\.nii and .*a\.nii\.gz: both are case a; remove one of them"),
        ([], ["a.nii"], r"images: contains no images \(\.nii\.gz, \.nii, \.nrrd, "),
        (["a.nii"], ["._a.nii"], r"labels: contains no images \(\.nii\.gz, \.nii, \.nrrd, "),
    ],
)
def test_what_cannot_be_paired_is_named(images: list[str], labels: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        pair_cases(*folders(tmp_path, images, labels))


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="images: is not a folder"):
        pairs_of(tmp_path)


# Checks


@pytest.mark.parametrize(("truth", "expected"), [(ORGAN, False), (TUMOR, True), (0 * ORGAN, False)])
def test_one_case_with_tumor_tells_that_the_labels_know_tumors(
    truth: np.ndarray, expected: bool, tmp_path: Path
) -> None:
    save_cohort(tmp_path, {"a": (ORGAN, ORGAN), "b": (ORGAN, truth), "c": (ORGAN, ORGAN)})
    assert check_pairs(pairs_of(tmp_path)).tumor_in_labels is expected


def test_each_pair_checked_is_announced(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"a": (ORGAN, ORGAN), "b": (ORGAN, 3 * ORGAN)})
    seen: list[None] = []
    with pytest.raises(InputError):
        check_pairs(pairs_of(tmp_path), on_pair=lambda: seen.append(None))
    assert len(seen) == 2


def test_a_label_beyond_2_is_refused(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"odd": (ORGAN, 3 * ORGAN)})
    with pytest.raises(InputError, match=r"odd\.nii\.gz: contains label 3; labels are 0 \(background\), 1"):
        check_pairs(pairs_of(tmp_path))


def test_labels_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"odd": (ORGAN, ORGAN[:3])})
    with pytest.raises(InputError, match=r"odd\.nii\.gz: has shape \(3, 8, 8\), but the scan has \(4, 8, 8\)"):
        check_pairs(pairs_of(tmp_path))


def test_labels_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"odd": (ORGAN, ORGAN)})
    save_labels(tmp_path / "labels" / "odd.nii.gz", ORGAN, AFFINE + 5 * np.eye(4, k=3))
    with pytest.raises(InputError, match=r"odd\.nii\.gz: lies 5 mm off the grid of the scan"):
        check_pairs(pairs_of(tmp_path))


def test_labels_that_are_probabilities_are_refused(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"odd": (ORGAN, ORGAN * np.float32(0.5))})
    with pytest.raises(InputError, match=r"odd\.nii\.gz: labels must be integers"):
        check_pairs(pairs_of(tmp_path))


def test_labels_that_are_damaged_are_refused(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"odd": (ORGAN, ORGAN)})
    truncate(tmp_path / "labels" / "odd.nii.gz")
    with pytest.raises(InputError, match=r"odd\.nii\.gz: the file is truncated"):
        check_pairs(pairs_of(tmp_path))


def test_a_scan_that_is_none_is_refused(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"odd": (ORGAN, ORGAN)})
    (tmp_path / "images" / "odd.nii.gz").write_text("<html>Please log in</html>")
    with pytest.raises(InputError, match=r"odd\.nii\.gz: the file is named \.gz but is not compressed"):
        check_pairs(pairs_of(tmp_path))


def test_all_that_cannot_be_evaluated_is_named_at_once(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"a": (ORGAN, 3 * ORGAN), "b": (ORGAN, ORGAN), "c": (ORGAN, ORGAN[:3])})
    with pytest.raises(InputError, match=r"2 of 3 cases cannot be evaluated\n  .*a\.nii\.gz: .*\n  .*c\.nii\.gz: "):
        check_pairs(pairs_of(tmp_path))


def test_the_voxels_of_scans_are_not_read_for_the_check(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"a": (ORGAN, ORGAN)})
    truncate(tmp_path / "images" / "a.nii.gz")
    assert len(check_pairs(pairs_of(tmp_path)).pairs) == 1


def test_a_scan_without_orientation_is_checked_as_it_will_be_read(tmp_path: Path) -> None:
    # Its label has one: LPS, with its middle at the origin of the world, where such scans are put.
    placed = AFFINE.copy()
    placed[:3, 3] = [0.8 * 3.5, 0.8 * 3.5, -2.5 * 1.5]
    save_cohort(tmp_path, {"a": (ORGAN, ORGAN)})
    save_labels(tmp_path / "labels" / "a.nii.gz", ORGAN, placed)
    scan = save_labels(tmp_path / "images" / "a.nii", ORGAN)
    scan.write_bytes(patched(scan.read_bytes(), 252, [0, 0], "<i2"))
    (tmp_path / "images" / "a.nii.gz").unlink()
    assert len(check_pairs(pairs_of(tmp_path), reading=ScanOptions(assume_orientation="LPS")).pairs) == 1
    with pytest.raises(InputError, match=r"a\.nii: the file does not state its orientation"):
        check_pairs(pairs_of(tmp_path))
