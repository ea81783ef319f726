"""From an ONNX graph to a plan."""

import math
from types import SimpleNamespace
from typing import Any

import onnx

from ._flags import ProfilingVerbosity
from ._plan import Plan, Profile, Shape

_TIMINGS = b"emulated timings"
_PHASE, _STEPS = "Building engine", 4


class INetworkDefinition:
    """The graph that the parser read."""

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self.graph = b""

    def get_flag(self, flag: int) -> bool:
        return bool(self._flags & 1 << flag)

    def dynamic_inputs(self) -> dict[str, int]:
        """The number of axes of each input that has a length which is not fixed."""
        graph = onnx.load_model_from_string(self.graph).graph
        axes = {each.name: each.type.tensor_type.shape.dim for each in graph.input}
        return {name: len(dims) for name, dims in axes.items() if any(not dim.HasField("dim_value") for dim in dims)}


class OnnxParser:
    def __init__(self, network: INetworkDefinition, _: Any) -> None:
        self._network = network
        self._errors: list[Any] = []

    def parse(self, model: bytes) -> bool:
        try:
            onnx.checker.check_model(onnx.load_model_from_string(bytes(model)))
        except Exception as error:  # noqa: BLE001  which one depends on what is wrong
            reason = str(error)
            self._errors.append(
                SimpleNamespace(desc=lambda: reason, node_name=lambda: "", node_operator=lambda: "the graph")
            )
            return False
        self._network.graph = bytes(model)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Shape, Shape, Shape]] = {}

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None:  # noqa: A002
        if any(not low <= usual <= high for low, usual, high in zip(min, opt, max, strict=True)):
            raise ValueError("the shapes are not in order")
        self.shapes[input] = tuple(min), tuple(opt), tuple(max)


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return _TIMINGS


class IBuilderConfig:
    builder_optimization_level = 3
    profiling_verbosity: Any = ProfilingVerbosity.LAYER_NAMES_ONLY
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.profiles: list[Profile] = []
        self._timings: ITimingCache | None = None

    def clear_flag(self, flag: int) -> None:
        pass

    def set_memory_pool_limit(self, pool: int, pool_size: int) -> None:
        pass

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(Profile(profile.shapes))
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._timings = cache
        return ignore_mismatch or cache.content in (b"", _TIMINGS)

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timings


class Builder:
    def __init__(self, log: Any) -> None:
        self._log = log

    def create_network(self, flags: int) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        for name, axes in network.dynamic_inputs().items():
            if not all(len(profile.shapes.get(name, ((),))[0]) == axes for profile in config.profiles or [Profile({})]):
                self._log.log(1, f"the dynamic input {name} has no shapes in an optimization profile")
                return None
        if not _goes_on(config.progress_monitor):
            return None
        detailed = config.profiling_verbosity == ProfilingVerbosity.DETAILED
        return Plan(network.graph, tuple(config.profiles), detailed).to_bytes()


def _goes_on(monitor: Any) -> bool:
    """Report some steps. Returns whether the build was not cancelled."""
    if monitor is None:
        return True
    monitor.phase_start(_PHASE, None, _STEPS)
    goes_on = all(monitor.step_complete(_PHASE, step) for step in range(_STEPS))
    monitor.phase_finish(_PHASE)
    return goes_on


def describe_layers(plan: Plan) -> list[Any]:
    """The layers as the inspector of TensorRT 11 tells them: names only, or what is known of each."""
    graph = onnx.load_model_from_string(plan.graph).graph
    if not plan.detailed:
        return [node.name for node in graph.node]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    return [_describe(node, weights) for node in graph.node]


def _describe(node: Any, weights: dict[str, Any]) -> dict[str, Any]:
    layer = {"Name": node.name, "LayerType": node.op_type, "Metadata": f"[ONNX Layer: {node.name}]", "TacticName": ""}
    kinds = {onnx.TensorProto.FLOAT: "Float", onnx.TensorProto.FLOAT16: "Half"}
    for name in node.input[1:2]:
        if name in weights and weights[name].data_type in kinds:
            tensor = weights[name]
            layer["Weights"] = {"Type": kinds[tensor.data_type], "Count": math.prod(tensor.dims)}
    return layer
