"""Whatever TensorRT refuses by returning nothing is an error with its own last words.

On a stand-in for the package, which cannot be installed without a GPU; its names are checked in
`tests/engines/test_tensorrt_api.py`. What really compiles is in `test_trt_build.py`.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from cascade_rt.config import CascadeConfig
from cascade_rt.engines.engine_cache import BuildOptions, EngineCache, Machine
from cascade_rt.engines.tensorrt_api import TensorRTLog
from cascade_rt.errors import EngineBuildError
from cascade_rt_export import trt_build
from cascade_rt_export.trt_build import BuiltEngine, build_engine, cached_engine
from tests.half_graphs import convolutions

MACHINE = Machine("NVIDIA H200", "9.0", "590.44.01")


class StandIn:
    """Behaves like TensorRT 11 on a GPU; what is in `refused` it refuses, with a word in its log."""

    __version__ = "11.4.0.106"
    IProgressMonitor = object
    BuilderFlag = SimpleNamespace(TF32="TF32")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")
    ProfilingVerbosity = SimpleNamespace(DETAILED="DETAILED")
    LayerInformationFormat = SimpleNamespace(JSON="JSON")

    def __init__(self) -> None:
        self.refused = ""
        self.inspected = ""
        self.timings_taken: list[bytes] = []
        self.known_timings = {b"", b"measured"}
        self.flags = {"TF32"}
        self.config = SimpleNamespace(
            clear_flag=self.flags.discard,
            set_memory_pool_limit=lambda pool, size: setattr(self, "workspace", (pool, size)),
            add_optimization_profile=lambda _: self.answer("add_optimization_profile", 0, -1),
            create_timing_cache=lambda content: self.answer("create_timing_cache", content),
            set_timing_cache=self.take_timings,
            get_timing_cache=lambda: self.answer(
                "get_timing_cache", SimpleNamespace(serialize=lambda: self.answer("serialize", b"measured"))
            ),
        )

    def answer(self, name: str, value: Any, refusal: Any = None) -> Any:
        if self.refused != name:
            return value
        self.logger.log(1, f"{name} ran out of luck")
        return refusal

    def take_timings(self, content: bytes, ignore_mismatch: bool) -> bool:
        if content not in self.known_timings:
            return False
        self.timings_taken.append(content)
        return self.answer("set_timing_cache", True, False)  # type: ignore[no-any-return]

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        self.logger = logger
        if self.refused == "driver":
            logger.log(1, "no driver here")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        profile = SimpleNamespace(set_shape=lambda *_: None)
        network = SimpleNamespace(get_flag=lambda _: self.answer("strong typing", True, False))
        return SimpleNamespace(
            create_network=lambda _: self.answer("create_network", network),
            create_builder_config=lambda: self.answer("create_builder_config", self.config),
            create_optimization_profile=lambda: self.answer("create_optimization_profile", profile),
            build_serialized_network=lambda *_: self.answer("build_serialized_network", b"plan"),
        )

    def OnnxParser(self, _network: Any, _logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(num_errors=0, parse=lambda _: self.answer("parse", True, False))

    def Runtime(self, _logger: Any) -> Any:  # noqa: N802
        layers = [
            {"Name": name, "LayerType": "Convolution", "Weights": {"Type": "Float", "Count": 1}}
            for name in ("conv0", "conv1")
        ]
        told = self.inspected or json.dumps({"Layers": layers})
        inspector = SimpleNamespace(get_engine_information=lambda _: told)
        engine = SimpleNamespace(create_engine_inspector=lambda: self.answer("create_engine_inspector", inspector))
        return SimpleNamespace(deserialize_cuda_engine=lambda _: self.answer("deserialize_cuda_engine", engine))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> TensorRTLog:
    """A log of its own: the one of the process belongs to packages that are really there."""
    log = TensorRTLog(None)
    log.logger = SimpleNamespace(log=log.note)
    monkeypatch.setattr(trt_build, "tensorrt_log", lambda _: log)
    return log


@pytest.fixture
def tensorrt(log: TensorRTLog, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in)  # type: ignore[arg-type]
    return stand_in


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A small float32 graph with the input of stage 1."""
    model = convolutions([2.0], shrink=0.5)
    model.graph.input[0].name = model.graph.node[0].input[0] = "hu"
    onnx.save(model, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def build(graph: Path, **named: Any) -> BuiltEngine:
    return build_engine(graph, "stage1", CascadeConfig(), flavour="tensorrt", precision="fp32", **named)


def test_an_engine_that_can_be_opened_is_proven_by_its_inspector(tensorrt: StandIn, graph: Path) -> None:
    built = build(graph)
    assert (built.plan, built.facts.proven_by, built.facts.shares.single) == (b"plan", "inspector", 1)


@pytest.mark.parametrize(
    "refused",
    [
        "create_network",
        "strong typing",
        "parse",
        "create_builder_config",
        "create_optimization_profile",
        "add_optimization_profile",
        "create_timing_cache",
        "set_timing_cache",
        "build_serialized_network",
        "get_timing_cache",
        "serialize",
        "deserialize_cuda_engine",
        "create_engine_inspector",
    ],
)
def test_a_refusal_is_reported_with_the_last_error(tensorrt: StandIn, graph: Path, refused: str) -> None:
    tensorrt.refused = refused
    with pytest.raises(EngineBuildError, match=rf"small\.onnx with tensorrt: .*{refused} ran out of luck"):
        build(graph)


HALF = {"Name": "conv0", "LayerType": "CaskConvolution", "Weights": {"Type": "Half", "Count": 9}}
DYNAMIC = {"Name": "conv0", "LayerType": "Convolution", "Inputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]}


@pytest.mark.parametrize(
    ("inspected", "reason"),
    [
        ("not JSON", "the engine inspector returned unreadable output: 'not JSON'"),
        (json.dumps({"Layers": ["conv0"]}), "lists only the names of its layers"),
        (json.dumps({"Layers": [{"Weights": {"Count": "many"}, "Inputs": [7]}]}), "unreadable output"),
        (json.dumps({"Layers": [HALF]}), "0.00% of the convolution work is in float32, too little for fp32"),
        (json.dumps({"Layers": [DYNAMIC]}), "0.00% of the convolution work is in float32, too little for fp32"),
    ],
)
def test_an_engine_of_unproven_precision_is_never_shipped_but_used_with_a_warning(
    tensorrt: StandIn, graph: Path, tmp_path: Path, inspected: str, reason: str
) -> None:
    tensorrt.inspected = inspected
    with pytest.raises(EngineBuildError, match=reason):
        build(graph)
    cache = EngineCache(tmp_path / "engines")
    for _ in range(2):  # compiled, and from the cache
        found = cached_engine(cache, MACHINE, graph, "stage1", CascadeConfig(), flavour="tensorrt", precision="fp32")
        assert found.plan == b"plan"
        assert reason in found.facts["precision_doubt"]


def test_of_a_proven_engine_there_is_no_doubt(tensorrt: StandIn, graph: Path, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    found = cached_engine(cache, MACHINE, graph, "stage1", CascadeConfig(), flavour="tensorrt", precision="fp32")
    assert found.facts["precision_doubt"] == ""


def test_a_builder_that_finds_no_driver_says_so(tensorrt: StandIn, graph: Path) -> None:
    tensorrt.refused = "driver"
    with pytest.raises(EngineBuildError, match=r"does nvidia-smi run\? \(no driver here\)"):
        build(graph)


def test_the_last_error_is_not_one_of_the_build_before(tensorrt: StandIn, log: TensorRTLog, graph: Path) -> None:
    tensorrt.refused = "parse"
    with pytest.raises(EngineBuildError):
        build(graph)
    tensorrt.refused = ""
    build(graph)
    assert log.errors == []


def test_float32_is_not_rounded_to_tf32(tensorrt: StandIn, graph: Path) -> None:
    build(graph)
    assert tensorrt.flags == set()


def test_a_workspace_limit_reaches_the_builder(tensorrt: StandIn, graph: Path) -> None:
    build(graph, options=BuildOptions(workspace_bytes=1 << 30))
    assert tensorrt.workspace == ("WORKSPACE", 1 << 30)  # type: ignore[attr-defined]


def test_what_was_measured_is_used_again(tensorrt: StandIn, graph: Path) -> None:
    build(graph, timings=build(graph).timings)
    assert tensorrt.timings_taken == [b"", b"measured"]


def test_what_another_version_measured_is_left_aside(tensorrt: StandIn, graph: Path) -> None:
    build(graph, timings=b"of another version")
    assert tensorrt.timings_taken == [b""]
