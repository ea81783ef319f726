"""Telling crops with a tumor from crops without: known scores have known figures, and crops stay what they are."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.patients.cases import Case, Patient
from benchmarks.tumor_crops.__main__ import compare, main
from benchmarks.tumor_crops.crops import Crop, cut_crops, read_crops
from benchmarks.tumor_crops.matching import attenuation_hu, matched, noise_hu
from benchmarks.tumor_crops.placing import fillings
from benchmarks.tumor_crops.roc import area_under_roc, figures, sensitivity_at
from cascade_rt.bundles.bundle import embedded_bundle_path
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.errors import InputError
from cascade_rt.scans.volume import Volume

SCORES = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=8)


def crop_of(hu: npt.ArrayLike, *, patient: str = "pancreas_001", slice_number: int = 0) -> Crop:
    return Crop(patient, slice_number, np.asarray(hu, dtype=np.float32), patient.startswith("pancreas"))


def tissue(shape: tuple[int, int] = (40, 60), hu: float = 90.0, noise: float = 8.0, seed: int = 0) -> Crop:
    """Even tissue with noise."""
    return crop_of(np.random.default_rng(seed).normal(hu, noise, shape))


def healthy_patient() -> Patient:
    """One slice of even tissue with a gland in it."""
    truth = np.zeros((1, 320, 320), dtype=bool)
    truth[0, 100:140, 80:180] = True
    hu = np.random.default_rng(0).normal(40, 8, truth.shape)
    hu[truth] += 60
    volume = Volume.from_array(hu.astype(np.int16).T, np.diag([-0.8, -0.8, 1.0, 1.0]))
    return Patient(Case("PANCREAS_0051", "slices", Path("image"), Path("label")), volume, truth)


def write_zip(path: Path, crops: dict[str, npt.NDArray[np.uint8]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, grey in crops.items():
            stored = BytesIO()
            Image.fromarray(grey).save(stored, "png")
            archive.writestr(name, stored.getvalue())
    return path


@given(ill=SCORES, healthy=SCORES)
def test_the_area_is_the_share_of_pairs_that_the_ill_one_wins(ill: list[float], healthy: list[float]) -> None:
    won = [1.0 if a > b else 0.5 if a == b else 0.0 for a in ill for b in healthy]

    assert area_under_roc(np.array(ill), np.array(healthy)) == pytest.approx(np.mean(won))


@given(ill=SCORES, healthy=SCORES)
def test_no_more_of_the_healthy_than_allowed_lie_above_the_threshold(ill: list[float], healthy: list[float]) -> None:
    found = sensitivity_at(np.array(ill), np.array(healthy), 0.25)

    thresholds = [t for t in healthy if np.mean(np.array(healthy) > t) <= 0.25]
    assert found == max(np.mean(np.array(ill) > t) for t in thresholds)


def test_a_patient_with_many_crops_counts_once_among_patients() -> None:
    found = figures({"a": [0.9] * 50, "b": [0.1]}, {"c": [0.5]})

    assert (found["area_patients"]["value"], found["area_crops"]["value"]) == (0.5, pytest.approx(50 / 51))


def test_the_interval_holds_the_value_of_groups_that_overlap() -> None:
    random = np.random.default_rng(0)
    ill, healthy = ({str(n): list(random.normal(mean, 1, 5)) for n in range(20)} for mean in (0.5, 0.0))

    for figure in figures(ill, healthy).values():
        low, high = figure["interval_95"]
        assert low < figure["value"] < high


def test_each_third_of_boxes_with_both_groups_gets_figures() -> None:
    crops = [
        crop_of(np.zeros((side, side)), patient=patient)
        for side in (8, 16, 32)
        for patient in ("pancreas_001", "PANCREAS_0051")
    ]

    lines = compare(crops, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], seed=0)

    areas = {line["boxes"]: line["area_crops"]["value"] for line in lines}
    assert areas == {"all": pytest.approx(6 / 9), "small": 1.0, "middle": 1.0, "large": 0.0}


def test_grey_values_become_the_hu_of_their_window(tmp_path: Path) -> None:
    grey = np.full((10, 12), 51, dtype=np.uint8)
    grey[0, 0], grey[0, 1] = 0, 255

    (crop,) = read_crops(write_zip(tmp_path / "crops.zip", {"pancreas_416_slice_70.png": grey}))

    assert (crop.patient, crop.slice, crop.has_tumor) == ("pancreas_416", 70, True)
    assert crop.hu[0, :3].tolist() == pytest.approx([-150, 250, -70])


def test_crops_of_healthy_patients_are_recognized_by_name(tmp_path: Path) -> None:
    grey = np.zeros((10, 12), dtype=np.uint8)

    crops = read_crops(write_zip(tmp_path / "crops.zip", {"PANCREAS_0051_slice_3.png": grey}))

    assert [crop.has_tumor for crop in crops] == [False]


def test_a_zip_without_crops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no crops"):
        read_crops(write_zip(tmp_path / "other.zip", {"picture.png": np.zeros((10, 10), dtype=np.uint8)}))


def test_a_file_other_than_a_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "crops.zip").write_text("no zip")

    with pytest.raises(InputError, match="cannot be read as a zip"):
        read_crops(tmp_path / "crops.zip")


@pytest.mark.parametrize("filling", ["mirror", "fat", "patient"])
@pytest.mark.parametrize("shape", [(8, 9), (41, 60), (200, 312)])
def test_a_crop_lies_unchanged_in_its_frame(filling: str, shape: tuple[int, int]) -> None:
    crop = tissue(shape)

    placed = fillings([healthy_patient()])[filling](crop)  # type: ignore[index]

    rows, cols = placed.box
    whole = placed.hu[rows, cols]
    assert np.array_equal(whole, crop.hu[: whole.shape[0], : whole.shape[1]])


def test_matched_crops_are_equally_bright_and_noisy() -> None:
    crops = [tissue(hu=70, noise=5, seed=1), tissue(hu=110, noise=12, seed=2), tissue(hu=90, noise=8, seed=3)]

    equal = matched(crops, np.random.default_rng(0))

    assert [attenuation_hu(crop) for crop in equal] == pytest.approx([90, 90, 90], abs=1)
    assert np.ptp([noise_hu(crop) for crop in equal]) < 0.1 * np.ptp([noise_hu(crop) for crop in crops]) + 1


def test_healthy_crops_share_their_box_with_and_without_a_tumor() -> None:
    ((ill, healthy),) = cut_crops([healthy_patient()], TumorRecipe(), np.random.default_rng(2))

    assert (ill.has_tumor, healthy.has_tumor) == (True, False)
    assert ill.hu.shape == healthy.hu.shape
    assert not np.array_equal(ill.hu, healthy.hu)


def test_tumor_crops_are_measured_with_every_margin_filling(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = [f"pancreas_{n:03}_slice_1.png" for n in range(3)] + [f"PANCREAS_{n:04}_slice_1.png" for n in range(3)]
    crops = write_zip(tmp_path / "crops.zip", {name: random.integers(90, 180, (40, 60), np.uint8) for name in names})
    output = tmp_path / "results.jsonl"

    result = CliRunner().invoke(main, [str(embedded_bundle_path("phantom")), str(crops), "-o", str(output)])

    assert result.exit_code == 0, result.output
    kinds = [(line["kind"], line.get("filling")) for line in map(json.loads, output.read_text().splitlines())]
    assert set(kinds) == {("machine", None), ("confounder", None)} | {
        (kind, filling) for kind in ("as_stored", "matched") for filling in ("mirror", "fat")
    }


def test_a_bundle_that_looks_for_the_pancreas_alone_is_refused(tmp_path: Path) -> None:
    crops = write_zip(tmp_path / "crops.zip", {"pancreas_416_slice_70.png": np.zeros((10, 12), dtype=np.uint8)})

    result = CliRunner().invoke(main, [str(embedded_bundle_path("patients")), str(crops)])

    assert result.exit_code == 2
    assert "finds only the pancreas" in result.output
