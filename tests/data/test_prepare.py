"""Preparing checks everything first, converts each case once, and ends in a split."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.data import msd, nih
from cascade_rt.data.msd import find_msd_cases
from cascade_rt.data.nih import find_nih_cases
from cascade_rt.data.prepare import Listing, Preparation, SplitRequest, prepare_cases
from cascade_rt.data.slices import has_case, is_intact, open_cases
from cascade_rt.data.split import read_split
from cascade_rt.errors import BackendUnavailableError, InputError, OutputError, PartialFailureError, UsageError
from cascade_rt.scans.nifti.options import ScanOptions
from tests.data_trees import anatomy, msd_tree, nih_tree, write_nifti
from tests.dicom_files import axial_slices, write_series

NAMES = ["pancreas_001", "pancreas_004", "pancreas_005"]
REQUEST = SplitRequest("msd", msd.TEST_SHARE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return msd_tree(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def prepare(data: Path, store: Path, request: SplitRequest = REQUEST, **options: bool) -> Preparation:
    return prepare_cases(find_msd_cases(data), store, request, **options)


def test_cases_are_converted_and_split(data: Path, store: Path) -> None:
    done = prepare(data, store)
    assert done.converted == NAMES
    assert (len(done.split.train), len(done.split.test)) == (2, 1)
    assert read_split(store, "msd") == done.split
    for number, case in zip((1, 4, 5), open_cases(store, NAMES), strict=True):
        hu, label = anatomy(number, tumor=True)
        np.testing.assert_array_equal(case.image, hu)
        np.testing.assert_array_equal(case.label, label)
        assert case.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_nih_cases_are_converted_with_their_flips(tmp_path: Path, store: Path) -> None:
    listing = find_nih_cases(*nih_tree(tmp_path, flip=(0, 1)))
    done = prepare_cases(listing, store, SplitRequest("nih", nih.TEST_SHARE))
    assert done.flips == {"yz": 3}
    np.testing.assert_array_equal(open_cases(store, ["PANCREAS_0002"])[0].label, anatomy(2)[1])


def test_doubts_about_a_scan_are_reported_with_its_name(data: Path, store: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        path = data / folder / "pancreas_004.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1, 1, 5, 1])), path)
    (warning,) = (each for each in prepare(data, store).warnings if "mm apart" in each)
    assert warning.startswith("case pancreas_004: ")


def test_case_json_has_hashes_and_sources_but_no_folders(data: Path, store: Path) -> None:
    prepare(data, store)
    text = (store / "pancreas_004" / "case.json").read_text()
    facts = json.loads(text)
    assert facts["source"]["label"] == "pancreas_004.nii.gz"
    assert facts["arrays"]["image.npy"]["shape"] == [6, 20, 24]
    assert len(facts["arrays"]["label.npy"]["sha256"]) == 64
    assert str(data) not in text


@pytest.mark.parametrize(
    ("dataset", "share", "cases", "test_cases"),
    [
        ("msd", msd.TEST_SHARE, 281, 65),
        ("nih", nih.TEST_SHARE, 82, 20),
        ("nih", nih.TEST_SHARE, 80, 20),
        ("msd", msd.TEST_SHARE, 100, 23),
        ("msd", msd.TEST_SHARE, 2, 1),
    ],
)
def test_the_split_has_the_proportion_of_the_paper(
    store: Path, dataset: str, share: float, cases: int, test_cases: int
) -> None:
    for number in range(cases):
        (store / f"case_{number}").mkdir(parents=True)
        (store / f"case_{number}" / "case.json").write_text('{"spacing_mm": [1, 1, 1]}')
    listing = Listing([msd.MsdCase(f"case_{number}", store, store) for number in range(cases)])
    assert len(prepare_cases(listing, store, SplitRequest(dataset, share)).split.test) == test_cases


def test_finished_cases_are_not_converted_again(data: Path, store: Path) -> None:
    prepare(data, store)
    (store / "pancreas_004" / "case.json").unlink()
    before = (store / "pancreas_001" / "image.npy").stat().st_mtime_ns
    done = prepare(data, store)
    assert (done.converted, done.kept) == (["pancreas_004"], ["pancreas_001", "pancreas_005"])
    assert (store / "pancreas_001" / "image.npy").stat().st_mtime_ns == before


def test_a_conversion_that_is_killed_leaves_no_case(data: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[str] = []

    def fail_at_the_label(source: str, target: Path) -> None:
        replaced.append(target.name)
        if target.name == "label.npy":
            raise KeyboardInterrupt
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("cascade_rt.common.atomic.os.replace", fail_at_the_label)
        with pytest.raises(KeyboardInterrupt):
            prepare(data, store)
    assert replaced == ["image.npy", "label.npy"]
    assert not has_case(store, "pancreas_001")
    assert not (store / "split.json").exists()
    assert prepare(data, store).converted == NAMES


def test_a_damaged_case_is_found_only_by_its_hash_and_converted_again(data: Path, store: Path) -> None:
    prepare(data, store)
    path = store / "pancreas_004" / "label.npy"
    np.save(path, 1 - np.load(path).clip(max=1))
    assert open_cases(store, NAMES)
    assert not is_intact(store, "pancreas_004")
    assert prepare(data, store).converted == []
    assert prepare(data, store, verify=True).converted == ["pancreas_004"]
    assert is_intact(store, "pancreas_004")


def test_all_problems_are_reported_before_anything_is_converted(data: Path, store: Path) -> None:
    (data / "labelsTr" / "pancreas_005.nii.gz").unlink()
    write_nifti(data / "labelsTr" / "pancreas_004.nii.gz", anatomy()[1][1:])
    with pytest.raises(InputError) as caught:
        prepare(data, store)
    assert str(caught.value).startswith("2 problems; nothing was converted\n  case pancreas_005: has no label")
    assert "case pancreas_004: " in str(caught.value)
    assert not store.exists()


def test_one_problem_is_one_sentence(tmp_path: Path, store: Path) -> None:
    data, labels = nih_tree(tmp_path)
    (data / "PANCREAS_0009").mkdir()
    write_nifti(labels / "label0009.nii.gz", anatomy()[1])
    with pytest.raises(InputError) as caught:
        prepare_cases(find_nih_cases(data, labels), store, SplitRequest("nih", nih.TEST_SHARE))
    message = str(caught.value)
    assert message.startswith("case PANCREAS_0009: ")
    assert message.endswith("(nothing was converted)")
    assert "\n" not in message


def test_only_the_first_ten_problems_are_listed(tmp_path: Path, store: Path) -> None:
    msd_tree(tmp_path, range(12), listed=False)
    for path in (tmp_path / "labelsTr").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"12 problems(.*\n){11}  and 2 more$"):
        prepare(tmp_path, store)


def test_unknown_label_values_fail_their_case_and_no_other(data: Path, store: Path) -> None:
    write_nifti(data / "labelsTr" / "pancreas_004.nii.gz", anatomy()[1] * 5)
    with pytest.raises(PartialFailureError, match=r"case pancreas_004: .*contains unknown values 5") as caught:
        prepare(data, store)
    assert "1 of 3 cases were not converted; fix or remove them and run it again" in str(caught.value)
    assert [name for name in NAMES if has_case(store, name)] == ["pancreas_001", "pancreas_005"]
    assert not (store / "split.json").exists()


def test_a_missing_package_stops_at_once(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    data, labels = nih_tree(tmp_path)
    write_series(data / "PANCREAS_0004", axial_slices(anatomy()[0], syntax="1.2.840.10008.1.2.4.80"))
    write_nifti(labels / "label0004.nii.gz", anatomy()[1])
    with pytest.raises(BackendUnavailableError, match=r"pip install .*pyjpegls"):
        prepare_cases(find_nih_cases(data, labels), store, SplitRequest("nih", nih.TEST_SHARE))


def test_seed_and_number_of_test_cases_can_be_chosen(data: Path, store: Path) -> None:
    split = prepare(data, store, SplitRequest("msd", msd.TEST_SHARE, test_cases=2, seed=9)).split
    assert (len(split.test), split.seed) == (2, 9)


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (SplitRequest("msd", msd.TEST_SHARE, seed=1), "does not match seed 1"),
        (SplitRequest("msd", msd.TEST_SHARE, test_cases=2), "does not match 2 test cases"),
        (SplitRequest("nih", nih.TEST_SHARE), "contains cases of 'msd'"),
    ],
)
def test_an_existing_split_is_not_redrawn(data: Path, store: Path, request_: SplitRequest, what: str) -> None:
    prepare(data, store)
    with pytest.raises(UsageError, match=what):
        prepare(data, store, request_)


def test_a_split_of_other_cases_is_detected_before_converting(data: Path, store: Path) -> None:
    prepare(data, store)
    msd_tree(data, [6], listed=False)
    (data / "dataset.json").unlink()
    with pytest.raises(UsageError, match="does not match these cases; delete it to draw another, but"):
        prepare(data, store)
    assert not has_case(store, "pancreas_006")


def test_one_case_cannot_be_split_and_that_is_said_before_converting(tmp_path: Path, store: Path) -> None:
    with pytest.raises(UsageError, match="1 of 1 cases cannot be test cases"):
        prepare(msd_tree(tmp_path, [1]), store)
    assert not store.exists()


def test_a_store_that_cannot_be_written_is_an_output_error(data: Path, store: Path) -> None:
    store.write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        prepare(data, store)


def test_progress_is_reported_case_by_case(data: Path, store: Path) -> None:
    checked: list[str] = []
    converted: list[str] = []
    prepare_cases(find_msd_cases(data), store, REQUEST, on_check=checked.append, on_case=converted.append)
    assert (checked, converted) == (NAMES, NAMES)


def rewrite(path: Path) -> None:
    """Write a NIfTI file anew: other bytes, another time, the same size in all likelihood."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), path)


@pytest.mark.parametrize(("folder", "what"), [("imagesTr", "image"), ("labelsTr", "label")])
def test_a_case_is_not_kept_if_its_file_has_changed(data: Path, store: Path, folder: str, what: str) -> None:
    prepare(data, store)
    rewrite(data / folder / "pancreas_004.nii.gz")
    with pytest.raises(
        UsageError, match=rf"^case pancreas_004: was made with a different {what} from pancreas_004.nii.gz "
    ):
        prepare(data, store)


def test_a_case_with_a_changed_file_is_converted_once_its_folder_is_deleted(data: Path, store: Path) -> None:
    split = prepare(data, store).split
    rewrite(data / "labelsTr" / "pancreas_004.nii.gz")
    shutil.rmtree(store / "pancreas_004")
    done = prepare(data, store)
    assert (done.converted, done.split) == (["pancreas_004"], split)


def test_files_that_were_copied_or_touched_are_the_same(data: Path, store: Path) -> None:
    prepare(data, store)
    os.utime(data / "labelsTr" / "pancreas_004.nii.gz", ns=(1, 1))
    assert prepare(data, store).converted == []


def test_files_that_look_as_they_did_are_not_read_again(data: Path, store: Path) -> None:
    prepare(data, store)
    path = data / "labelsTr" / "pancreas_004.nii.gz"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert prepare(data, store).converted == []


def test_a_changed_dicom_series_is_detected(tmp_path: Path, store: Path) -> None:
    data, labels = nih_tree(tmp_path)
    request = SplitRequest("nih", nih.TEST_SHARE)
    prepare_cases(find_nih_cases(data, labels), store, request)
    assert prepare_cases(find_nih_cases(data, labels), store, request).converted == []
    shutil.rmtree(data / "PANCREAS_0002")
    write_series(data / "PANCREAS_0002", axial_slices(anatomy(7)[0]))
    with pytest.raises(UsageError, match="case PANCREAS_0002: was made with a different image from PANCREAS_0002"):
        prepare_cases(find_nih_cases(data, labels), store, request)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"label_flip": "y"}, "label_flip_asked 'auto' instead of 'y'"),
        ({"reading": ScanOptions(hu_offset=7)}, "hu_offset 0 instead of 7"),
        ({"reading": ScanOptions(scattered=True)}, "scattered False instead of True"),
    ],
)
def test_a_case_is_not_kept_if_it_was_made_with_other_options(
    tmp_path: Path, store: Path, options: dict[str, Any], what: str
) -> None:
    data, labels = nih_tree(tmp_path)
    shutil.rmtree(data)
    for number in (1, 2, 3):
        write_nifti(data / f"PANCREAS_{number:04d}.nii.gz", anatomy(number)[0])
    request = SplitRequest("nih", nih.TEST_SHARE)
    prepare_cases(find_nih_cases(data, labels), store, request)
    with pytest.raises(UsageError, match=f"case PANCREAS_0001: was made with {what}"):
        prepare_cases(find_nih_cases(data, labels, **options), store, request)


def test_cases_of_earlier_versions_are_kept_and_it_is_said(data: Path, store: Path) -> None:
    prepare(data, store)
    path = store / "pancreas_004" / "case.json"
    facts = json.loads(path.read_text())
    del facts["source"]["files"]
    path.write_text(json.dumps(facts))
    done = prepare(data, store)
    assert done.kept == NAMES
    assert any(
        "1 cases of the store were kept without checking their source files" in warning for warning in done.warnings
    )


def test_a_label_file_of_which_something_is_doubtful_is_named(data: Path, store: Path) -> None:
    path = data / "labelsTr" / "pancreas_004.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(7)))
    expected = "case pancreas_004: its label file: the file has trailing data after the image; it is ignored"
    assert expected in prepare(data, store).warnings


def test_a_duplicate_scan_is_reported(data: Path, store: Path) -> None:
    scans = data / "imagesTr"
    shutil.copy(scans / "pancreas_001.nii.gz", scans / "pancreas_005.nii.gz")
    done = prepare(data, store)
    expected = "cases pancreas_001 and pancreas_005 have the same scan"
    torn = ("pancreas_001" in done.split.test) != ("pancreas_005" in done.split.test)
    (told,) = (warning for warning in done.warnings if warning.startswith(expected))
    assert ("one in training and one in test" in told) is torn
