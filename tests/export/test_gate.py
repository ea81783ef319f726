"""The gate catches each way an engine can be wrong, and says where."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from cascade_rt.common.comparison import Agreement
from cascade_rt.common.tolerances import GATE_LIMITS
from cascade_rt.config import CascadeConfig
from cascade_rt.engines import Engines
from cascade_rt.engines.base import Array, StageEngine
from cascade_rt.engines.fake import FakeEngine, organ_by_hu, tumor_by_salient
from cascade_rt.errors import ParityError
from cascade_rt_export.batch_slots import compare_slots
from cascade_rt_export.calibration import Calibration, CalibrationScan
from cascade_rt_export.gate import GateResult, judge, run_gate

CONFIG = CascadeConfig(base_width=8)
LIMIT = GATE_LIMITS["fp16"]
ORGAN_HU, TUMOR_SALIENT = 50.0, 0.7


def stages() -> Engines:
    """Engines whose probability is 1 from 50 HU, and from a salient value of 0.7, on."""
    return Engines(organ_by_hu(ORGAN_HU, CONFIG.window_hu), tumor_by_salient(TUMOR_SALIENT))


def scan() -> CalibrationScan:
    """Three slices with a bright square of 140 to 180 HU in each, on black."""
    voxels = np.full((3, 96, 96), -500, dtype=np.int16)
    voxels[:, 30:60, 40:70] = np.linspace(100, 180, 30).astype(np.int16)
    return CalibrationScan("scan.nii.gz", (4, 9, 14), voxels)


CALIBRATION = Calibration("a square", (scan(),))


def changed(engine: StageEngine, change: Callable[[dict[str, Array]], dict[str, Array]]) -> FakeEngine:
    """An engine whose answers are changed."""

    def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return change(engine.run(inputs))

    return FakeEngine(engine.stage, compute)


def measured(candidate: Engines) -> GateResult:
    return run_gate(stages(), candidate, CONFIG, CALIBRATION)


def test_an_engine_that_is_the_reference_passes() -> None:
    found = measured(stages())
    judge(found, GATE_LIMITS["fp32"], "it")
    assert (found.organ.dice["mask"], found.tumor.dice["mask"], found.organ.max_error) == (1.0, 1.0, 0.0)


def test_the_fake_networks_find_something() -> None:
    reference = stages()
    blind = Engines(reference.stage1, changed(reference.stage2, lambda out: {name: 0 * out[name] for name in out}))
    assert len(measured(blind).tumors_vanished) == 3


def test_a_missing_tumor_is_named_by_slice_and_stage() -> None:
    reference = stages()
    blind = Engines(reference.stage1, changed(reference.stage2, lambda out: {name: 0 * out[name] for name in out}))
    with pytest.raises(ParityError, match=r"tumor.*scan\.nii\.gz, slice (4|9|14), also with stage 2 alone"):
        judge(measured(blind), LIMIT, "it")


def test_an_engine_that_returns_nan_is_caught() -> None:
    reference = stages()
    spoilt = changed(reference.stage2, lambda out: {name: out[name] * np.float32("nan") for name in out})
    with pytest.raises(ParityError, match=r"scan\.nii\.gz: stage2 on fake returned NaN or infinity"):
        measured(Engines(reference.stage1, spoilt))


def test_small_errors_at_the_threshold_fail_the_gate_by_their_masks() -> None:
    def lowered(array: Array, by: float) -> Array:
        return np.clip(array - np.float32(by), 0, 1)

    ramp = FakeEngine("stage2", lambda inputs: {"tumor_prob": lowered(inputs["salient"], 0.19999)})
    lower = changed(ramp, lambda out: {name: lowered(array, 1e-4) for name, array in out.items()})
    organ = stages().stage1
    found = run_gate(Engines(organ, ramp), Engines(organ, lower), CONFIG, CALIBRATION)
    assert found.tumor.max_error <= GATE_LIMITS["fp32"].max_error
    with pytest.raises(ParityError, match=r"the tumor mask has a Dice of 0\.\d+ with that of PyTorch"):
        judge(found, LIMIT, "it")


def test_a_moved_box_is_named() -> None:
    reference = stages()
    found = measured(Engines(organ_by_hu(175.0, CONFIG.window_hu), reference.stage2))
    assert found.boxes_moved == ("scan.nii.gz, slice 4", "scan.nii.gz, slice 9", "scan.nii.gz, slice 14")


def test_rows_that_leak_into_each_other_are_caught() -> None:
    def leak(outputs: dict[str, Array]) -> dict[str, Array]:
        return {name: 0.9 * array + 0.1 * np.roll(array, 1, axis=0) for name, array in outputs.items()}

    reference = stages()
    found = measured(Engines(reference.stage1, changed(reference.stage2, leak)))
    found = replace(found, tumor=found.organ)
    with pytest.raises(
        ParityError, match="stage2 returns different outputs for one input at different batch positions"
    ):
        judge(found, LIMIT, "it")


def test_an_engine_that_is_wrong_from_the_second_row_on_is_caught() -> None:
    def second_row(outputs: dict[str, Array]) -> dict[str, Array]:
        return {name: np.concatenate([array[:1], np.zeros_like(array[1:])]) for name, array in outputs.items()}

    assert compare_slots(changed(tumor_by_salient(0.5), second_row)).max_error > LIMIT.slot_error


@pytest.mark.parametrize("engine", [organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.5)])
def test_an_engine_whose_rows_do_not_meet_has_no_slot_error(engine: StageEngine) -> None:
    assert compare_slots(engine).max_error == 0.0


def test_a_slot_error_of_nan_fails() -> None:
    found = replace(measured(stages()), slots={"stage1": Agreement(1, max_error=float("nan"))})
    with pytest.raises(ParityError, match="stage1 returns different outputs for one input"):
        judge(found, LIMIT, "it")


def test_empty_masks_have_no_dice_and_null_in_json() -> None:
    empty = Calibration("air", (CalibrationScan("air", (0,), np.full((1, 96, 96), -1000, dtype=np.int16)),))
    found = run_gate(stages(), stages(), CONFIG, empty)
    assert found.to_json()["tumor"]["mask_dice"] is None
