"""From an ONNX graph to a compiled engine that is shown to compute in the precision asked for.

One way for TensorRT 10.13 and later, 11 and TensorRT-RTX. None of them is told a precision: networks are strongly
typed, and the types are those of the graph (docs/decisions/0011).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import onnx
from onnx import ModelProto

from cascade_rt.bundles.files import BundleFile
from cascade_rt.common.tensors import SHORTEST_SIDE, STAGE_SPECS, Precision, Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.engine_cache import BuildOptions, CachedEngine, EngineCache, Machine, engine_key
from cascade_rt.engines.shape_profiles import ShapeProfile, shape_profiles
from cascade_rt.engines.tensorrt_api import (
    Builder,
    Flavour,
    IBuilderConfig,
    IBuilderConfigRtx,
    INetworkDefinition,
    OnnxParser,
    TensorRT,
    TensorRTLog,
    TensorRTRtx,
    import_tensorrt,
    tensorrt_log,
)
from cascade_rt.errors import EngineBuildError, UsageError
from cascade_rt_export.conv_work import multiplications
from cascade_rt_export.trt_layers import EngineLayer, layers_from_json, layers_from_log, layers_to_json
from cascade_rt_export.trt_precision import Convolution, WorkShares, check_precision, work_shares
from cascade_rt_export.trt_progress import BuildProgress, BuildWatch, OnProgress, progress_monitor

Made = TypeVar("Made")

# Every convolution of both networks grows with the area of the image alike, so any size gives the same shares.
_COUNTING_SHAPE = (1, 1, 2 * SHORTEST_SIDE, 2 * SHORTEST_SIDE)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is known about a compiled engine."""

    stage: Stage
    precision: Precision
    flavour: Flavour
    version: str
    """Version of TensorRT."""
    profiles: tuple[ShapeProfile, ...]
    options: BuildOptions
    onnx_sha256: str
    plan_sha256: str
    shares: WorkShares
    """Shares of the convolution work by type."""
    proven_by: str
    """Where the layers were read: `inspector` of the opened engine, or `build log`, where it cannot be opened."""
    layers: tuple[EngineLayer, ...]
    """All layers of the engine."""

    def to_json(self) -> dict[str, Any]:
        """The facts as plain values, without the layers; `layers_to_json` has those."""
        return {
            "stage": self.stage,
            "precision": self.precision,
            "flavour": self.flavour,
            "version": self.version,
            "onnx_sha256": self.onnx_sha256,
            "plan_sha256": self.plan_sha256,
            "convolution_work": self.shares.to_json(),
            "proven_by": self.proven_by,
            "layers": len(self.layers),
        }


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A compiled engine and what is known about it."""

    plan: bytes
    facts: EngineFacts
    timings: bytes
    """What TensorRT measured, for the next build on this machine; empty for TensorRT-RTX, which measures nothing."""


def go_on(_: BuildProgress) -> bool:
    """Take no notice of progress."""
    return True


OnBuild = Callable[[str], OnProgress]
"""Called with a sentence before an engine is compiled, which takes minutes; returns what is told of its steps."""


def say_nothing(_: str) -> OnProgress:
    """Take no notice of builds."""
    return go_on


def build_engine(
    onnx_path: Path | BundleFile,
    stage: Stage,
    config: CascadeConfig,
    *,
    flavour: Flavour,
    precision: Precision,
    options: BuildOptions = BuildOptions(),  # noqa: B008 - frozen
    timings: bytes = b"",
    on_progress: OnProgress = go_on,
) -> BuiltEngine:
    """Compile a graph and show that the engine computes in its precision.

    One at a time in a process: TensorRT has a single log, and the errors and layers are read from it.

    Args:
        onnx_path: The graph, with its weights inside; float32 for `fp32`, of `half_precision_graph` for `fp16`.
        stage: The stage it is of, which decides the shapes it is compiled for.
        config: The cascade it is of.
        flavour: Which TensorRT. Both build for the GPU that is there; TensorRT-RTX needs none and builds for those of
            `options`.
        precision: What the graph is said to be in; the engine is refused if it is not.
        options: What the builder is asked for.
        timings: `BuiltEngine.timings` of an earlier build on this machine.
        on_progress: Called after each step; the build is given up where it returns False. Ctrl-C ends it too.

    Raises:
        EngineBuildError: The graph is none that TensorRT takes, the build failed or was given up, or the engine does
            not compute in its precision.
        BackendUnavailableError: TensorRT is not installed, or is too old.
        UsageError: The options are not for this TensorRT.
    """
    build = _Build(flavour, options, f"{onnx_path.name} with {flavour}")
    return _build_proven(build, _read_graph(onnx_path), stage, config, precision, timings, on_progress)


def _build_proven(
    build: "_Build",
    content: bytes,
    stage: Stage,
    config: CascadeConfig,
    precision: Precision,
    timings: bytes,
    on_progress: OnProgress,
) -> BuiltEngine:
    profiles = shape_profiles(stage, config)
    plan, new_timings = build.run(content, stage, profiles, timings, BuildWatch(on_progress))
    layers, proven_by = build.read_layers(plan)
    shares = work_shares(layers, _convolutions(onnx.load_model_from_string(content), stage))
    check_precision(shares, precision, build.what)
    facts = EngineFacts(
        stage=stage,
        precision=precision,
        flavour=build.flavour,
        version=build.trt.__version__,
        profiles=profiles,
        options=build.options,
        onnx_sha256=hashlib.sha256(content).hexdigest(),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        shares=shares,
        proven_by=proven_by,
        layers=tuple(layers),
    )
    return BuiltEngine(plan, facts, new_timings)


def cached_engine(
    cache: EngineCache,
    machine: Machine,
    onnx_path: Path | BundleFile,
    stage: Stage,
    config: CascadeConfig,
    *,
    flavour: Flavour,
    precision: Precision,
    options: BuildOptions = BuildOptions(),  # noqa: B008 - frozen
    on_build: OnBuild = say_nothing,
) -> CachedEngine:
    """Take an engine from the cache, or compile it and keep it there.

    Args:
        cache: Where engines are kept.
        machine: The machine it is for.
        onnx_path: See `build_engine`, as for the others.
        stage: The stage.
        config: The cascade.
        flavour: Which TensorRT.
        precision: The precision.
        options: What the builder is asked for.
        on_build: Called with the reason in a sentence, if it has to be compiled; returns what `build_engine` calls
            after each step.

    Raises:
        OutputError: The engine cannot be kept.
        EngineBuildError: As `build_engine`, and so the other errors.
    """
    content = _read_graph(onnx_path)
    key = engine_key(content, stage, config, flavour=flavour, precision=precision, options=options, machine=machine)
    found = cache.load(key)
    if isinstance(found, CachedEngine):
        return found
    with cache.building(key):
        # Whoever was in there before has kept it.
        found = cache.load(key)
        if isinstance(found, CachedEngine):
            return found
        on_progress = on_build(found.reason)
        build = _Build(flavour, options, f"{onnx_path.name} with {flavour}")
        built = _build_proven(build, content, stage, config, precision, cache.load_timings(key), on_progress)
        facts = {**built.facts.to_json(), "layer_list": layers_to_json(built.facts.layers)}
        cache.store(key, built.plan, facts)
        if built.timings:
            cache.store_timings(key, built.timings)
        return CachedEngine(built.plan, facts)


class _Build:
    """One build: the package, its log, and the errors that name the graph."""

    def __init__(self, flavour: Flavour, options: BuildOptions, what: str) -> None:
        _check_options(flavour, options)
        self.flavour = flavour
        self.options = options
        self.what = what
        self.trt: TensorRT = import_tensorrt(flavour)
        self.log: TensorRTLog = tensorrt_log(flavour)
        self.log.clear()

    def run(
        self, content: bytes, stage: Stage, profiles: tuple[ShapeProfile, ...], timings: bytes, watch: BuildWatch
    ) -> tuple[bytes, bytes]:
        """Compile a graph; returns the plan and what was measured."""
        builder = self._builder()
        # The network reads weights that the parser holds, so the parser has to live until the end.
        network, _parser = self._network(builder, content)
        config = self._config(builder, stage, profiles)
        cache = self._start_timings(config, timings)
        config.progress_monitor = progress_monitor(self.trt, watch)
        with watch.holding_signals():
            memory = builder.build_serialized_network(network, config)
        watch.reraise()
        if watch.cancelled:
            raise EngineBuildError(f"{self.what}: the build was given up as asked; there is no engine")
        plan = bytes(self._made(memory, "the engine cannot be built"))
        return plan, self._end_timings(config) if cache else b""

    def read_layers(self, plan: bytes) -> tuple[list[EngineLayer], str]:
        """The layers of a plan, and where they were read."""
        if self.flavour == "tensorrt_rtx" and self.log.layers:
            # An engine built ahead of time is for another machine, and a machine without a driver opens none.
            return layers_from_log(self.log.layers), "build log"
        runtime = self._made(self.trt.Runtime(self.log.logger), "there is no runtime to open the engine with")
        engine = self._made(runtime.deserialize_cuda_engine(plan), "the engine cannot be opened")
        inspector = self._made(engine.create_engine_inspector(), "the engine cannot be inspected")
        return layers_from_json(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)), "inspector"

    def _builder(self) -> Builder:
        try:
            return self._made(self.trt.Builder(self.log.logger), "there is no builder")
        except TypeError as error:
            # What the bindings raise where the library returns nothing: without a driver, for example.
            raise self._failure("there is no builder; does nvidia-smi run?") from error

    def _network(self, builder: Builder, content: bytes) -> tuple[INetworkDefinition, OnnxParser]:
        strongly_typed = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = self._made(builder.create_network(1 << int(strongly_typed)), "there is no network")
        if not network.get_flag(strongly_typed):
            raise self._failure("the network is not strongly typed, so its precision would not be that of the graph")
        parser = self._made(self.trt.OnnxParser(network, self.log.logger), "there is no parser")
        if not parser.parse(content):
            raise EngineBuildError(f"{self.what}: {_parser_errors(parser) or self.log.last_error}; export it again")
        return network, parser

    def _config(self, builder: Builder, stage: Stage, profiles: tuple[ShapeProfile, ...]) -> IBuilderConfig:
        trt = self.trt
        config = self._made(builder.create_builder_config(), "there is no builder config")
        # On by default: convolutions in float32 would round their inputs to 10 bits.
        config.clear_flag(trt.BuilderFlag.TF32)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.builder_optimization_level = self.options.optimization_level
        if self.options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.options.workspace_bytes)
        if self.options.compute_capability is not None:
            self._set_target(cast(IBuilderConfigRtx, config), self.options.compute_capability)
        for shapes in profiles:
            self._add_profile(builder, config, stage, shapes)
        return config

    def _set_target(self, config: IBuilderConfigRtx, compute_capability: str) -> None:
        known = cast(TensorRTRtx, self.trt).ComputeCapability
        target = getattr(known, f"SM{compute_capability.replace('.', '')}", None)
        if target is None:
            names = [name.removeprefix("SM") for name in known.__members__ if name.startswith("SM")]
            listed = ", ".join(f"{name[:-1]}.{name[-1]}" for name in names)
            raise UsageError(f"{self.flavour} builds for the compute capabilities {listed}, not {compute_capability!r}")
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(target, 0):
            raise self._failure(f"cannot build for compute capability {compute_capability}")

    def _add_profile(self, builder: Builder, config: IBuilderConfig, stage: Stage, shapes: ShapeProfile) -> None:
        profile = self._made(builder.create_optimization_profile(), "there is no profile")
        for tensor in STAGE_SPECS[stage].inputs:
            try:
                profile.set_shape(tensor.name, shapes.smallest, shapes.usual, shapes.largest)
            except ValueError as error:
                raise self._failure(f"a profile {shapes} cannot be set") from error
        if config.add_optimization_profile(profile) < 0:
            raise self._failure(f"takes no images from {shapes.smallest} to {shapes.largest}")

    def _start_timings(self, config: IBuilderConfig, timings: bytes) -> bool:
        """Give the builder what was measured earlier, or nothing where that was with other versions."""
        if self.flavour == "tensorrt_rtx":
            return False
        cache = self._made(config.create_timing_cache(timings), "there is no timing cache")
        if not config.set_timing_cache(cache, False):
            cache = self._made(config.create_timing_cache(b""), "there is no timing cache")
            if not config.set_timing_cache(cache, False):
                raise self._failure("the timing cache is refused")
        return True

    def _end_timings(self, config: IBuilderConfig) -> bytes:
        cache = self._made(config.get_timing_cache(), "the timing cache is gone")
        return bytes(self._made(cache.serialize(), "the timing cache cannot be kept"))

    def _made(self, thing: Made | None, problem: str) -> Made:
        """Raise where TensorRT returned nothing."""
        if thing is None:
            raise self._failure(problem)
        return thing

    def _failure(self, problem: str) -> EngineBuildError:
        return EngineBuildError(f"{self.what}: {problem} ({self.log.last_error})")


def _check_options(flavour: Flavour, options: BuildOptions) -> None:
    if flavour == "tensorrt" and options.compute_capability is not None:
        raise UsageError("tensorrt builds for the GPU that is there; a compute capability is for tensorrt_rtx")
    if not 0 <= options.optimization_level <= 5:
        raise UsageError(f"the optimisation level must be from 0 to 5, got {options.optimization_level}")
    if options.workspace_bytes is not None and options.workspace_bytes <= 0:
        raise UsageError(f"the workspace must be positive, got {options.workspace_bytes}")


def _read_graph(path: Path | BundleFile) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineBuildError(f"{path}: cannot be read ({error.strerror}); name an ONNX graph of a bundle") from error


def _parser_errors(parser: OnnxParser) -> str:
    """What the parser refused, node by node, in a sentence."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(
        f"node {error.node_name()!r} ({error.node_operator()}) is refused: {' '.join(error.desc().split())}"
        for error in errors
    )


def _convolutions(graph: ModelProto, stage: Stage) -> Mapping[str, Convolution]:
    """The convolutions of a graph, by name."""
    inputs = {tensor.name: np.zeros(_COUNTING_SHAPE, dtype=tensor.dtype) for tensor in STAGE_SPECS[stage].inputs}
    work = multiplications(graph, inputs)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    return {
        node.name: Convolution(work[node.name], sizes[node.input[1]]) for node in graph.graph.node if node.name in work
    }
