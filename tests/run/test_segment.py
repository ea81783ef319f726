"""`segment`: from whatever a scan is to its segmentation, on an open cascade or one that is opened for it."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import cascade_rt
from cascade_rt import ScanOptions, SearchOptions, open_cascade, segment
from cascade_rt.errors import InputError, OutputError, UsageError
from cascade_rt.run.cascade import Cascade
from tests.cohort_files import AFFINE, HU, fake_cascade

LABELS = np.zeros((6, 64, 64), dtype=np.uint8)
LABELS[1:5, 20:40, 20:40] = 1
LABELS[2:4, 25:30, 25:30] = 2
ARRAY = HU[LABELS].T


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Cascade]:
    """The cascades that `segment` opens, which are fakes."""
    cascades: list[Cascade] = []

    def open_fake(**_: Any) -> Cascade:
        cascades.append(fake_cascade())
        return cascades[-1]

    monkeypatch.setattr("cascade_rt.run.segment.open_cascade", open_fake)
    return cascades


def test_a_cascade_is_opened_and_closed(opened: list[Cascade]) -> None:
    np.testing.assert_array_equal(segment((ARRAY, AFFINE), bundle="phantom").mask, LABELS)
    (cascade,) = opened
    with pytest.raises(UsageError, match="the cascade is closed"):
        cascade.segment((ARRAY, AFFINE))


def test_a_cascade_that_is_given_stays_open(opened: list[Cascade]) -> None:
    with fake_cascade() as cascade:
        for _ in range(2):
            np.testing.assert_array_equal(segment((ARRAY, AFFINE), cascade).mask, LABELS)
    assert opened == []


def test_a_file_is_segmented_and_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(ARRAY, AFFINE), path)
    found = segment(str(path), fake_cascade(), reading=ScanOptions(assume_hu=True))
    np.testing.assert_array_equal(found.mask, LABELS)
    assert found.volume.file is not None


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.nii\.gz"):
        fake_cascade().segment(tmp_path / "scan.nii.gz")


def test_probabilities_and_progress_are_passed_on() -> None:
    seen: list[int] = []
    found = fake_cascade().segment((ARRAY, AFFINE), keep_probabilities=True, on_slices=seen.append)
    assert sorted(found.probabilities()) == ["organ", "tumor"]
    assert sum(seen) == 6


def test_what_is_no_scan_is_refused_before_a_bundle_is_opened(opened: list[Cascade]) -> None:
    with pytest.raises(UsageError, match=r"^scan: got float"):
        segment(3.5)
    assert opened == []


def test_a_cascade_and_how_to_open_one_contradict_each_other() -> None:
    with pytest.raises(UsageError, match=r"^cascade: is open already, so bundle would have no effect"):
        segment((ARRAY, AFFINE), fake_cascade(), bundle="phantom")


def test_a_cascade_of_another_type_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^cascade: got str"):
        segment((ARRAY, AFFINE), "phantom")  # type: ignore[arg-type]


@pytest.mark.parametrize("reading", [None, "scattered", 3])
def test_reading_of_another_type_is_refused(reading: Any) -> None:
    with pytest.raises(UsageError, match=r"^reading: got \w+; pass ScanOptions"):
        segment((ARRAY, AFFINE), fake_cascade(), reading=reading)


@pytest.mark.parametrize(("name", "given"), [("sha256", []), ("sha256", 3), ("falls_back", "x")])
def test_arguments_of_opening_are_checked(name: str, given: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: got"):
        open_cascade("phantom", **{name: given})


@pytest.mark.parametrize("path", [None, 3, b"a.nii"])
def test_results_are_saved_to_paths_only(path: Any) -> None:
    found = segment((ARRAY, AFFINE), fake_cascade(), keep_probabilities=True)
    for save in (found.save, found.save_report, found.save_probabilities):
        with pytest.raises(UsageError, match=r"^path: got"):
            save(path)


def test_a_name_with_a_nul_is_refused() -> None:
    found = segment((ARRAY, AFFINE), fake_cascade())
    with pytest.raises(OutputError, match="NUL"):
        found.save("a\0b.nii")


def test_slices_of_a_scattered_scan_are_not_skipped() -> None:
    with pytest.raises(UsageError, match="relies on adjacent slices"):
        segment((ARRAY, AFFINE), fake_cascade(), reading=ScanOptions(scattered=True), search=SearchOptions(4))


def test_the_function_of_the_package_is_this_one() -> None:
    assert cascade_rt.segment is segment
