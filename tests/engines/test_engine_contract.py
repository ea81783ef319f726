"""Every engine keeps the contract of `StageEngine`; this is the contract, executable.

Engines of an NVIDIA GPU run it where there is one.
"""

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import pytest

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import ENGINE_PRECISIONS, STAGE_SPECS, STAGES, EnginePrecision, Precision, Stage
from cascade_rt.common.tolerances import GATE_LIMITS
from cascade_rt.engines import BACKENDS, GPU_BACKENDS, Backend, open_engine
from cascade_rt.engines.base import StageEngine
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.engines.plans import Plan
from tests.bf16 import require_bf16
from tests.gpu_backends import require_packages

Open = Callable[[Stage], StageEngine]
Opened = tuple[Backend, EnginePrecision]

CPU_BACKENDS = [each for each in BACKENDS if each not in GPU_BACKENDS]
PARAMS: list[object] = [
    *(pytest.param((backend, "fp32"), marks=pytest.mark.gpu, id=backend) for backend in GPU_BACKENDS),
    pytest.param(("onnxruntime-cuda", "fp16"), marks=pytest.mark.gpu, id="onnxruntime-cuda-fp16"),
    *(pytest.param((backend, "fp32"), id=backend) for backend in CPU_BACKENDS),
    pytest.param(("onnxruntime", "fp16"), id="onnxruntime-fp16"),
    pytest.param(("openvino", "bf16"), id="openvino-bf16"),
    "fake",
]
BATCH_TOLERANCE = {precision: limits.slot_error for precision, limits in GATE_LIMITS.items()}
"""What the gate allows: another batch size may be given another kernel, and half precision shows it."""


def open_fake(stage: Stage) -> StageEngine:
    return organ_by_hu(50.0, (-100.0, 240.0)) if stage == "stage1" else tumor_by_salient(0.5)


PLANS: dict[tuple[str, Stage, Precision], Plan] = {}


def build_once(bundle: Bundle, stage: Stage, precision: Precision, _: int = 0) -> Plan:
    """A TensorRT engine for batches of up to 4 and sides of up to 256."""
    if (bundle.sha256, stage, precision) not in PLANS:
        tensorrt = pytest.importorskip("tensorrt")
        from cascade_rt.engines.tensorrt_build import build_plan

        name = STAGE_SPECS[stage].inputs[0].name
        shapes = {name: ((1, 1, 64, 64), (2, 1, 128, 128), (4, 1, 256, 256))}
        data = build_plan(tensorrt, bundle.graph(stage, precision).read_bytes(), shapes)
        PLANS[bundle.sha256, stage, precision] = Plan(data, precision)
    return PLANS[bundle.sha256, stage, precision]


@pytest.fixture(params=PARAMS)
def open_stage(request: pytest.FixtureRequest, bundle: Bundle) -> Open:
    if request.param == "fake":
        return open_fake
    backend, precision = cast(Opened, request.param)
    require_packages(backend)
    if precision == "bf16":
        require_bf16()
    return lambda stage: open_engine(bundle, stage, backend, precision, plans=build_once)


@pytest.fixture(params=STAGES)
def engine(request: pytest.FixtureRequest, open_stage: Open) -> Iterator[StageEngine]:
    opened = open_stage(request.param)
    yield opened
    opened.close()


def image(engine: StageEngine, batch: int = 2, rows: int = 64, cols: int = 96) -> dict[str, np.ndarray]:
    name = STAGE_SPECS[engine.stage].inputs[0].name
    random = np.random.default_rng(0)
    scale, shift = (300.0, 0.0) if name == "hu" else (0.3, 0.5)
    return {name: (random.normal(size=(batch, 1, rows, cols)) * scale + shift).astype(np.float32)}


@pytest.mark.parametrize(("batch", "rows", "cols"), [(1, 64, 64), (2, 64, 96), (5, 128, 80)])
def test_returns_exactly_the_outputs_of_the_stage_in_their_shapes(
    engine: StageEngine, batch: int, rows: int, cols: int
) -> None:
    outputs = engine.run(image(engine, batch, rows, cols))
    lengths = {"batch": batch, "height": rows, "width": cols}
    expected = {
        spec.name: tuple(lengths.get(axis, axis) for axis in spec.shape)  # type: ignore[arg-type]
        for spec in STAGE_SPECS[engine.stage].outputs
    }
    assert {name: array.shape for name, array in outputs.items()} == expected


def test_returns_float32(engine: StageEngine) -> None:
    assert {array.dtype for array in engine.run(image(engine)).values()} == {np.dtype(np.float32)}


def test_probabilities_lie_between_0_and_1(engine: StageEngine) -> None:
    outputs = engine.run(image(engine))
    for name in outputs.keys() - {"salient"}:
        assert outputs[name].min() >= 0
        assert outputs[name].max() <= 1


def test_never_writes_to_its_inputs(engine: StageEngine) -> None:
    inputs = image(engine)
    before = {name: array.copy() for name, array in inputs.items()}
    for array in inputs.values():
        array.setflags(write=False)
    engine.run(inputs)
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, before[name])


def test_outputs_belong_to_the_caller(engine: StageEngine) -> None:
    first = engine.run(image(engine))
    kept = {name: array.copy() for name, array in first.items()}
    engine.run({name: -array for name, array in image(engine).items()})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])


def test_takes_inputs_that_are_not_contiguous(engine: StageEngine) -> None:
    inputs = image(engine)
    flipped = {name: array[:, :, :, ::-1] for name, array in inputs.items()}
    contiguous = {name: np.ascontiguousarray(array) for name, array in flipped.items()}
    for name, array in engine.run(flipped).items():
        np.testing.assert_array_equal(array, engine.run(contiguous)[name])


def test_each_row_depends_on_its_own_input_alone(engine: StageEngine) -> None:
    inputs = image(engine, batch=3)
    whole = engine.run(inputs)
    for row in range(3):
        alone = engine.run({name: array[row : row + 1] for name, array in inputs.items()})
        for name, array in alone.items():
            exact = engine.info.backend not in GPU_BACKENDS and engine.info.precision != "bf16"
            atol = 1e-5 if exact else BATCH_TOLERANCE[engine.info.precision]
            np.testing.assert_allclose(whole[name][row : row + 1], array, atol=atol)


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ((1, 1, 72, 64), "height that is a multiple of 16 from 64 to 2048, got 72"),
        ((1, 1, 64, 48), "width that is a multiple of 16 from 64 to 2048, got 48"),
        ((1, 1, 64, 4096), "width that is a multiple of 16 from 64 to 2048, got 4096"),
        ((0, 1, 64, 64), r"shape \[batch >= 1, 1, height, width\], got \[0, 1, 64, 64\]"),
        ((1, 3, 64, 64), r"shape \[batch >= 1, 1, height, width\], got \[1, 3, 64, 64\]"),
        ((64, 64), r"shape \[batch >= 1, 1, height, width\], got \[64, 64\]"),
    ],
)
def test_refuses_a_shape_it_does_not_take(engine: StageEngine, shape: tuple[int, ...], complaint: str) -> None:
    name = STAGE_SPECS[engine.stage].inputs[0].name
    with pytest.raises(ValueError, match=complaint):
        engine.run({name: np.zeros(shape, dtype=np.float32)})


def test_refuses_another_type(engine: StageEngine) -> None:
    inputs = {name: array.astype(np.float64) for name, array in image(engine).items()}
    with pytest.raises(ValueError, match="must be float32, got float64"):
        engine.run(inputs)


def test_refuses_inputs_of_other_names(engine: StageEngine) -> None:
    with pytest.raises(ValueError, match=r"takes the inputs .* got \['picture'\]"):
        engine.run({"picture": np.zeros((1, 1, 64, 64), dtype=np.float32)})


def test_may_be_closed_twice_and_refuses_to_run_then(engine: StageEngine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="engine is closed"):
        engine.run(image(engine))


def test_says_what_it_is(engine: StageEngine) -> None:
    info = engine.info
    assert info.precision in ENGINE_PRECISIONS
    assert info.device
    assert info.version


def test_prefers_a_batch_that_it_takes(engine: StageEngine) -> None:
    batch = engine.preferred_batch
    assert all(len(array) == batch for array in engine.run(image(engine, batch)).values())
