"""The slices of patients that come with the package are what their attribution says."""

import numpy as np
import pytest

from benchmarks.patients.demo_patient import PATIENTS, choose_slices
from benchmarks.patients.nih_slices import is_test_case
from cascade_rt.data.demo_patient import ATTRIBUTION, FOLDER, LABEL, READING, SCAN
from cascade_rt.errors import InputError
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import read_mask


def test_scan_and_outline_are_of_the_same_six_slices() -> None:
    scan, label = read_volume(SCAN, READING), read_mask(LABEL)
    assert scan.voxels.shape == label.shape == (len(PATIENTS), 512, 512)
    assert set(np.unique(label)) == {0, 1}
    assert label.any(axis=(1, 2)).all()


def test_the_patients_lie_on_their_backs_with_the_liver_on_their_right() -> None:
    for image, drawn in zip(read_volume(SCAN, READING).voxels, read_mask(LABEL), strict=True):
        bone_rows, organ_row = np.nonzero(image == 255)[0], np.median(np.nonzero(drawn)[0])
        assert np.count_nonzero(bone_rows > organ_row) > 4 * np.count_nonzero(bone_rows < organ_row)
        soft = (image > 60) & (image < 200)
        assert np.count_nonzero(soft[:, :256]) > np.count_nonzero(soft[:, 256:])


def test_what_was_clipped_is_not_made_up_so_infer_refuses_it() -> None:
    with pytest.raises(InputError, match="0 to 255, are not Hounsfield units"):
        read_volume(SCAN)


@pytest.mark.parametrize("fact", ["10.7937/K9/TCIA.2016.tNB1kqBU", "licenses/by/3.0", "--assume-hu", "0052_112"])
def test_the_attribution_names_source_licence_and_changes(fact: str) -> None:
    assert fact in ATTRIBUTION.read_text(encoding="utf-8")


def test_the_slices_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_500_000


def test_they_are_of_patients_that_no_weights_are_trained_on() -> None:
    assert all(is_test_case(f"PANCREAS_{patient:04}") for patient in PATIENTS)


def test_whole_slices_are_chosen_by_their_place_from_the_lowest_up() -> None:
    names = [f"image/{patient:04}_{index:03}.jpg" for patient in PATIENTS for index in range(8)]
    extra = [f"image/{patient:04}_{index:03}_crop0.jpg" for patient in PATIENTS for index in range(40, 60)]
    masks = [name.replace("image", "mask").replace("jpg", "png") for name in names]
    chosen = choose_slices([*extra, *masks, *names])
    places = ["0062_006", "0060_005", "0058_004", "0056_003", "0054_002", "0052_001"]
    assert chosen == [f"image/{place}.jpg" for place in places]
