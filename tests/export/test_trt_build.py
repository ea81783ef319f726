"""Engines that TensorRT-RTX really compiles, here without a GPU, for one that is not there."""

import hashlib
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.engine_cache import PLAN_NAME, BuildOptions, EngineCache, Machine, Precision
from cascade_rt.engines.shape_profiles import shape_profiles
from cascade_rt.engines.tensorrt_api import tensorrt_log
from cascade_rt.errors import EngineBuildError, UsageError
from cascade_rt_export.half_precision import to_half
from cascade_rt_export.trt_build import BuiltEngine, build_engine, cached_engine
from cascade_rt_export.trt_progress import BuildProgress
from tests.build_reasons import noted
from tests.half_graphs import Converted, convolutions, model, node, of_stage

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13")

CONFIG = CascadeConfig(base_width=8)
ADA = BuildOptions(compute_capability="8.9")
MACHINE = Machine("NVIDIA RTX 4090", "8.9", "610.10")


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A small float32 graph."""
    return saved(tmp_path / "small_fp32.onnx", of_stage(convolutions([2.0], shrink=0.5)))


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """The same in half precision."""
    return saved(tmp_path / "small_fp16.onnx", to_half(of_stage(convolutions([2.0], shrink=0.5)), ()))


def saved(path: Path, graph: ModelProto) -> Path:
    onnx.save(graph, path)
    return path


def build(path: Path, precision: Precision = "fp32", **named: Any) -> BuiltEngine:
    options = {"flavour": "tensorrt_rtx", "precision": precision, "options": ADA, **named}
    return build_engine(path, "stage1", CONFIG, **options)


@pytest.fixture(
    scope="module", params=[(stage, precision) for stage in STAGES for precision in ("fp32", "fp16")], ids=str
)
def real(
    request: pytest.FixtureRequest, stages: Mapping[Stage, Converted], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Stage, Precision, BuiltEngine, str]:
    """A stage in a precision, its engine, and what TensorRT wrote of the engine's layers."""
    stage, precision = request.param
    graph = stages[stage].single if precision == "fp32" else stages[stage].half.graph
    path = saved(tmp_path_factory.mktemp("graphs") / f"{stage}_{precision}.onnx", graph)
    built = build_engine(path, stage, CONFIG, flavour="tensorrt_rtx", precision=precision, options=ADA)
    return stage, precision, built, tensorrt_log("tensorrt_rtx").layers


def test_both_stages_compute_in_their_precision(real: tuple[Stage, Precision, BuiltEngine, str]) -> None:
    _, precision, built, _ = real
    shares = built.facts.shares
    if precision == "fp16":
        assert shares.half >= 0.95
    else:
        assert (shares.half, shares.tf32, shares.other) == (0, 0, 0)
        assert shares.single >= 0.95


def test_the_plan_is_the_one_the_facts_are_about(real: tuple[Stage, Precision, BuiltEngine, str]) -> None:
    _, _, built, _ = real
    assert len(built.plan) > 1_000_000
    assert built.facts.plan_sha256 == hashlib.sha256(built.plan).hexdigest()


def test_without_a_driver_the_layers_are_those_of_the_build_log(
    real: tuple[Stage, Precision, BuiltEngine, str],
) -> None:
    assert real[2].facts.to_json()["proven_by"] == "build log"


def test_the_engine_takes_the_shapes_of_the_profiles(real: tuple[Stage, Precision, BuiltEngine, str]) -> None:
    stage, _, _, told = real
    for profile in shape_profiles(stage, CONFIG):
        shapes = {"MinShape": profile.smallest, "OptShape": profile.usual, "MaxShape": profile.largest}
        assert ", ".join(f"{name}: [{','.join(map(str, shape))}]" for name, shape in shapes.items()) in told


def test_inputs_and_outputs_are_float32_in_either_precision(real: tuple[Stage, Precision, BuiltEngine, str]) -> None:
    _, _, _, told = real
    tensors = [line for line in told.splitlines() if "IOMode: " in line]
    assert tensors
    assert all("DataType: Float," in line for line in tensors)


def test_a_float32_graph_under_the_label_fp16_is_refused(single: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"small_fp32\.onnx with tensorrt_rtx: 0\.00% .* in half precision"):
        build(single, "fp16")


def test_a_half_precision_graph_under_the_label_fp32_is_refused(half: Path) -> None:
    with pytest.raises(EngineBuildError, match="too little for fp32"):
        build(half, "fp32")


def test_types_are_never_mended_in_silence(tmp_path: Path) -> None:
    """Strong typing: a node that is given two types is an error, not a cast."""
    graph = of_stage(model([node("Mul", "x w", "y")], {"w": np.ones(1, dtype=np.float16)}, rank=4))
    with pytest.raises(EngineBuildError, match=r"mixed\.onnx"):
        build(saved(tmp_path / "mixed.onnx", graph))


def test_an_engine_for_every_gpu_it_knows_needs_no_option(half: Path) -> None:
    assert build(half, "fp16", options=BuildOptions()).facts.shares.half == 1


def test_an_operator_that_tensorrt_has_not_is_named_with_its_node(tmp_path: Path) -> None:
    graph = of_stage(model([node("Frobnicate", "x", "y")], {}, rank=4))
    with pytest.raises(EngineBuildError, match=r"odd\.onnx with tensorrt_rtx: node 'y' \(Frobnicate\) is rejected: "):
        build(saved(tmp_path / "odd.onnx", graph))


def test_a_file_other_than_a_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a graph")
    with pytest.raises(EngineBuildError, match=r"text\.onnx .*; export it again"):
        build(path)


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"gone\.onnx: cannot be read"):
        build(tmp_path / "gone.onnx")


def test_a_workspace_that_is_too_small_is_reported_with_tensorrts_reason(
    stages: Mapping[Stage, Converted], tmp_path: Path
) -> None:
    path = saved(tmp_path / "stage1.onnx", stages["stage1"].single)
    with pytest.raises(EngineBuildError, match=r"the engine cannot be built \(.*(workspace|OutOfMemory)"):
        build(path, options=BuildOptions(workspace_bytes=1 << 20, compute_capability="8.9"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (BuildOptions(compute_capability="9.0"), r"builds for the compute capabilities 7\.5, .*12\.0.*, not '9\.0'"),
        (BuildOptions(optimization_level=6), "from 0 to 5, got 6"),
        (BuildOptions(workspace_bytes=0), "must be positive, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(single: Path, options: BuildOptions, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        build(single, options=options)


def test_tensorrt_itself_builds_for_no_gpu_but_its_own(single: Path) -> None:
    with pytest.raises(UsageError, match="use a compute capability only with tensorrt_rtx"):
        build(single, flavour="tensorrt")


def test_progress_counts_the_steps_of_each_phase(single: Path) -> None:
    seen: list[BuildProgress] = []

    def watch(progress: BuildProgress) -> bool:
        seen.append(progress)
        return True

    build(single, on_progress=watch)
    assert seen
    assert all(1 <= progress.step <= progress.steps for progress in seen)


def test_a_build_that_is_given_up_is_an_error_that_says_so(single: Path) -> None:
    with pytest.raises(EngineBuildError, match="the build was canceled"):
        build(single, on_progress=lambda _: False)


def test_what_the_callback_raises_comes_out(single: Path) -> None:
    def fail(_: BuildProgress) -> bool:
        raise RuntimeError("no terminal")

    with pytest.raises(RuntimeError, match="no terminal"):
        build(single, on_progress=fail)


def interrupt(_: BuildProgress) -> bool:
    signal.raise_signal(signal.SIGINT)
    return True


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal; a shell starts processes in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_build(single: Path) -> None:
    seen: list[BuildProgress] = []

    def count_and_interrupt(progress: BuildProgress) -> bool:
        seen.append(progress)
        return interrupt(progress)

    with pytest.raises(KeyboardInterrupt):
        build(single, on_progress=count_and_interrupt)
    assert len(seen) == 1


def test_after_a_build_ctrl_c_does_what_it_did_before(single: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    build(single)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_build_works_after_one_that_failed(single: Path) -> None:
    with pytest.raises(EngineBuildError):
        build(single, "fp16")
    assert build(single).plan


@pytest.fixture
def cached(half: Path, tmp_path: Path) -> Callable[[], tuple[bytes, list[str]]]:
    """Takes an engine from a cache; returns the plan, and why it had to be compiled if it had to."""
    cache = EngineCache(tmp_path / "engines")

    def take() -> tuple[bytes, list[str]]:
        reasons: list[str] = []
        named: dict[str, Any] = {"flavour": "tensorrt_rtx", "precision": "fp16", "options": ADA}
        found = cached_engine(cache, MACHINE, half, "stage1", CONFIG, **named, on_build=noted(reasons))
        return found.plan, reasons

    return take


def test_an_engine_is_compiled_once(cached: Callable[[], tuple[bytes, list[str]]]) -> None:
    first, reasons = cached()
    assert "no engine for stage1 has been compiled" in reasons[0]
    assert cached() == (first, [])


def test_a_damaged_engine_is_compiled_again_with_a_word_why(
    cached: Callable[[], tuple[bytes, list[str]]], tmp_path: Path
) -> None:
    cached()
    (path,) = (tmp_path / "engines").glob(f"*/{PLAN_NAME}")
    path.write_bytes(b"damaged")
    _, reasons = cached()
    assert len(reasons) == 1
    assert "it has changed since it was written" in reasons[0]
    assert cached()[1] == []


def test_a_changed_graph_is_compiled_again(cached: Callable[[], tuple[bytes, list[str]]], half: Path) -> None:
    cached()
    saved(half, to_half(of_stage(convolutions([3.0], shrink=0.5)), ()))
    assert len(cached()[1]) == 1
