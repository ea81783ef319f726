"""The way of a scan, with fake engines that decide pixel by pixel: what comes out is known exactly."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt2axcodes

from cascade_rt.common.tensors import CROPS_PER_BATCH, PADDING_HU, SLICES_PER_BATCH
from cascade_rt.config import CropConfig
from cascade_rt.engines import Engines
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import EngineError, InputError, UsageError
from cascade_rt.run.cascade import Cascade, open_cascade
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import Volume
from tests.cohort_files import AFFINE, fake_cascade

ORGAN_HU, TUMOR_HU = 100, 200


def scan(shape: tuple[int, int, int] = (6, 96, 128)) -> Volume:
    """Air with a block of organ and a smaller one of tumor in it, away from the middle on each axis."""
    voxels = np.full(shape, -1000, dtype=np.int16)
    z, row, col = (length // 3 for length in shape)
    voxels[z : z + max(1, shape[0] // 2), row : row + shape[1] // 4, col : col + shape[2] // 3] = ORGAN_HU
    voxels[z, row + 1 : row + 1 + shape[1] // 8, col : col + shape[2] // 6] = TUMOR_HU
    return Volume.from_array(voxels.T, AFFINE)


def expected_mask(volume: Volume) -> np.ndarray:
    return (volume.voxels >= ORGAN_HU).astype(np.uint8) + (volume.voxels >= TUMOR_HU)


def test_labels_are_what_the_stages_say() -> None:
    volume = scan()
    np.testing.assert_array_equal(fake_cascade().run(volume).mask, expected_mask(volume))


@settings(max_examples=40)
@given(st.tuples(st.integers(1, 9), st.integers(1, 150), st.integers(1, 150)), st.integers(0, 2**32 - 1))
def test_any_shape_is_segmented_pixel_by_pixel(shape: tuple[int, int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    voxels = np.full(shape, -1000, dtype=np.int16)
    corner = [random.integers(0, length) for length in shape]
    window = tuple(slice(start, start + random.integers(1, 40)) for start in corner)
    voxels[window] = random.choice([ORGAN_HU, TUMOR_HU], size=voxels[window].shape)
    volume = Volume.from_array(voxels.T, AFFINE)
    np.testing.assert_array_equal(fake_cascade().run(volume).mask, expected_mask(volume))


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "LAS", "SPL", "AIR", "ILP"])
def test_the_mask_lands_on_the_anatomy_in_any_orientation(axcodes: str, tmp_path: Path) -> None:
    canonical = scan((6, 80, 64))
    image = nib.Nifti1Image(canonical.voxels.T, AFFINE)
    orientation = axcodes2ornt(tuple(axcodes)) if axcodes != "LPS" else axcodes2ornt(("L", "P", "S"))
    transform = nib.orientations.ornt_transform(axcodes2ornt(("L", "P", "S")), orientation)
    stored = apply_orientation(image.get_fdata(), transform).astype(np.int16)
    affine = AFFINE @ inv_ornt_aff(transform, image.shape)
    path, seg = tmp_path / "scan.nii.gz", tmp_path / "seg.nii.gz"
    nib.save(nib.Nifti1Image(stored, affine), path)
    fake_cascade().run(read_volume(path)).save(seg)
    mask = nib.load(seg)
    assert ornt2axcodes(nib.io_orientation(mask.affine)) == tuple(axcodes)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), (stored >= ORGAN_HU) * 1 + (stored >= TUMOR_HU))


def test_a_second_stage_that_finds_the_organ_has_the_last_word_on_it() -> None:
    volume = scan()
    segmentation = fake_cascade(target="organ").run(volume)
    np.testing.assert_array_equal(segmentation.mask, (volume.voxels >= TUMOR_HU).astype(np.uint8))
    assert segmentation.measurements.tumor_ml == 0


def test_policy_full_sends_slices_without_organ_whole_to_stage_2() -> None:
    segmentation = fake_cascade(empty_policy="full").run(scan())
    assert sorted(segmentation.boxes) == list(range(6))
    assert segmentation.boxes[0].size == (96, 128)


def test_a_slice_without_organ_is_left_alone_under_the_policy_skip() -> None:
    volume = scan()
    segmentation = fake_cascade(empty_policy="skip").run(volume)
    with_organ = np.flatnonzero((volume.voxels >= ORGAN_HU).any(axis=(1, 2)))
    assert sorted(segmentation.boxes) == with_organ.tolist()


def test_tumor_outside_the_organ_but_inside_the_box_counts() -> None:
    config = CropConfig()
    cascade = fake_cascade()
    everywhere = FakeEngine("stage2", lambda inputs: {"tumor_prob": np.ones_like(inputs["salient"])})
    cascade = Cascade(cascade.bundle, replace(cascade.engines, stage2=everywhere))
    segmentation = cascade.run(scan())
    box = segmentation.boxes[2]
    assert (segmentation.mask[2] == 2).sum() == box.height * box.width
    assert box.height >= config.min_side


def test_slices_in_which_stage_1_found_nothing_are_counted() -> None:
    volume = scan()
    empty = int((~(volume.voxels >= ORGAN_HU).any(axis=(1, 2))).sum())
    for policy in ("full", "skip"):
        assert fake_cascade(empty_policy=policy).run(volume).slices_without_organ == empty


def test_the_threshold_of_the_boxes_does_not_decide_what_is_tumor() -> None:
    unsure = FakeEngine("stage2", lambda inputs: {"tumor_prob": np.full_like(inputs["salient"], 0.3)})
    cascade = fake_cascade(threshold=0.2)
    cascade = Cascade(cascade.bundle, replace(cascade.engines, stage2=unsure))
    assert cascade.run(scan()).measurements.tumor_ml == 0


def test_a_false_positive_in_the_padding_does_not_stretch_the_box() -> None:
    def compute(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        prob = np.zeros_like(inputs["hu"])
        prob[:, :, 100:120, 100:120] = 1
        prob[:, :, 5:10, 250:] = 1
        return {
            "organ_prob": prob,
            "row_max": prob.max(axis=(1, 3)),
            "col_max": prob.max(axis=(1, 2)),
            "salient": np.zeros_like(prob),
        }

    cascade = fake_cascade()
    engines = replace(cascade.engines, stage1=FakeEngine("stage1", compute))  # type: ignore[arg-type]
    volume = Volume.from_array(np.zeros((250, 250, 1), dtype=np.int16), AFFINE)
    assert Cascade(cascade.bundle, engines).run(volume).boxes[0].size == (64, 64)


def test_slices_larger_than_the_networks_take_are_refused() -> None:
    volume = Volume.from_array(np.zeros((2064, 32, 1), dtype=np.int16), AFFINE)
    with pytest.raises(InputError, match="slices of 32 x 2064 pixels are larger than 2048 x 2048"):
        fake_cascade().run(volume)


def test_probabilities_are_kept_only_when_asked_for() -> None:
    volume = scan()
    assert fake_cascade().run(volume).organ_prob is None
    kept = fake_cascade().run(volume, keep_probabilities=True)
    np.testing.assert_array_equal(kept.organ_prob, (volume.voxels >= 50).astype(np.float32))
    np.testing.assert_array_equal(kept.tumor_prob, (volume.voxels >= TUMOR_HU).astype(np.float32))


def test_organ_probability_is_that_of_stage_2_if_both_stages_find_organs() -> None:
    kept = fake_cascade(target="organ").run(scan(), keep_probabilities=True)
    assert kept.organ_prob is not None
    np.testing.assert_array_equal(kept.organ_prob >= 0.5, kept.mask == 1)
    assert kept.tumor_prob is None
    with pytest.raises(UsageError, match="this bundle does not look for tumors; use organ_prob"):
        kept.to_nibabel("tumor_prob")


def test_engines_are_called_in_batches() -> None:
    sizes: dict[str, list[int]] = {"stage1": [], "stage2": []}
    cascade = fake_cascade(empty_policy="full")

    def counted(engine: FakeEngine) -> FakeEngine:
        def compute(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            sizes[engine.stage].append(len(next(iter(inputs.values()))))
            return engine.run(inputs)

        return FakeEngine(engine.stage, compute)  # type: ignore[arg-type]

    engines = Engines(counted(cascade.engines.stage1), counted(cascade.engines.stage2))  # type: ignore[arg-type]
    Cascade(cascade.bundle, engines).run(Volume.from_array(np.full((64, 64, 18), -1000, dtype=np.int16), AFFINE))
    assert sizes["stage1"] == [SLICES_PER_BATCH] * 4 + [2]
    assert sizes["stage2"] == [CROPS_PER_BATCH] * 2 + [2]


def test_progress_adds_up_to_the_slices() -> None:
    seen: list[int] = []
    fake_cascade().run(scan(), on_slices=seen.append)
    assert sum(seen) == 6


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_nan_is_an_error_that_names_the_stage(stage: str) -> None:
    cascade = fake_cascade()
    good = getattr(cascade.engines, stage)

    def spoil(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: np.where(np.arange(array.shape[-1]) == 3, np.nan, array) for name, array in good.run(inputs).items()
        }

    engines = replace(cascade.engines, **{stage: FakeEngine(good.stage, spoil)})  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=f"{stage} on fake returned NaN or infinity"):
        Cascade(cascade.bundle, engines).run(scan())


def test_every_step_is_timed() -> None:
    timings = fake_cascade().run(scan()).timings
    assert set(timings) == {"load", "preprocess", "stage1", "crop", "stage2", "paste", "measure"}


def test_closing_the_cascade_closes_both_engines() -> None:
    with fake_cascade() as cascade:
        engines = cascade.engines
    for engine in (engines.stage1, engines.stage2):
        with pytest.raises(RuntimeError, match="engine is closed"):
            engine.run({"hu" if engine.stage == "stage1" else "salient": np.zeros((1, 1, 64, 64), np.float32)})


def test_padding_lies_below_and_to_the_right_and_below_every_window() -> None:
    voxels = np.arange(6 * 70 * 20, dtype=np.int16).reshape(6, 70, 20)
    seen: list[np.ndarray] = []
    cascade = fake_cascade()

    def look(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(inputs["hu"].copy())
        return cascade.engines.stage1.run(inputs)

    engines = replace(cascade.engines, stage1=FakeEngine("stage1", look))  # type: ignore[arg-type]
    Cascade(cascade.bundle, engines).run(Volume.from_array(voxels.T, AFFINE))
    padded = np.concatenate(seen)
    assert padded.shape == (6, 1, 80, 64)
    np.testing.assert_array_equal(padded[:, 0, :70, :20], voxels)
    assert set(np.unique(padded[:, 0, 70:])) | set(np.unique(padded[:, 0, :, 20:])) == {PADDING_HU}


@pytest.mark.parametrize("given", ["scan.nii.gz", Path("scan.nii.gz"), np.zeros((4, 4, 4), np.int16), None])
def test_anything_but_a_volume_is_refused_with_how_to_make_one(given: Any) -> None:
    with pytest.raises(UsageError, match=r"not (str|PosixPath|ndarray|NoneType); read a file with read_volume"):
        fake_cascade().run(given)


@pytest.mark.parametrize("choice", [{"backend": "cuda"}, {"precision": "int8"}, {"backend": None}])
def test_an_unknown_backend_or_precision_is_refused_with_the_choices(choice: Any) -> None:
    with pytest.raises(UsageError, match=r"unknown value .*; choose from auto, "):
        open_cascade("phantom", **choice)


def test_a_closed_cascade_runs_no_more_and_says_so() -> None:
    with fake_cascade() as cascade:
        pass
    with pytest.raises(UsageError, match="the cascade is closed; open the bundle again"):
        cascade.run(scan())


def test_an_open_cascade_cannot_be_copied_and_says_so() -> None:
    with pytest.raises(UsageError, match="cannot be copied; share them"):
        copy.deepcopy(fake_cascade())
