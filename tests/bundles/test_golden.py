"""The golden case survives its file, and nothing else is taken for one."""

import numpy as np
import pytest

from cascade_rt.bundles.golden import GOLDEN_BYTES, SIDE, Golden, golden_bytes, read_golden
from cascade_rt.common.tensors import STAGE_SPECS, STAGES, Stage


def some_golden() -> dict[Stage, Golden]:
    random = np.random.default_rng(0)
    lengths = {"batch": 1, "height": SIDE, "width": SIDE}

    def tensors(stage: Stage, kind: str) -> dict[str, np.ndarray]:
        specs = getattr(STAGE_SPECS[stage], kind)
        shapes = {spec.name: [lengths.get(axis, axis) for axis in spec.shape] for spec in specs}
        return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    return {stage: Golden(tensors(stage, "inputs"), tensors(stage, "outputs")) for stage in STAGES}


def test_what_was_written_is_read_back() -> None:
    golden = some_golden()
    again = read_golden(golden_bytes(golden))
    for stage in STAGES:
        for kind in ("inputs", "outputs"):
            first, second = getattr(golden[stage], kind), getattr(again[stage], kind)
            assert first.keys() == second.keys()
            assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("length", [0, GOLDEN_BYTES - 4, GOLDEN_BYTES + 4])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"has {length} bytes"):
        read_golden(bytes(length))


def test_nan_is_refused_on_both_ways() -> None:
    golden = some_golden()
    golden["stage2"].outputs["tumor_prob"][0, 0, 3, 4] = np.nan
    with pytest.raises(ValueError, match="golden tumor_prob must be finite"):
        golden_bytes(golden)
    content = bytearray(golden_bytes(some_golden()))
    content[-4:] = np.float32(np.inf).tobytes()
    with pytest.raises(ValueError, match="contains NaN or infinity"):
        read_golden(bytes(content))


def test_another_shape_is_refused() -> None:
    golden = some_golden()
    golden["stage1"] = Golden({"hu": np.zeros((1, 1, 64, 64), np.float32)}, golden["stage1"].outputs)
    with pytest.raises(ValueError, match="golden hu must be finite and of shape"):
        golden_bytes(golden)
