"""Compile an ONNX graph to an engine and verify that it computes in the requested precision.

The same code path serves TensorRT 10.13 and later, TensorRT 11 and TensorRT-RTX. No precision flag is set: networks are
strongly typed, so the types are those of the graph (docs/decisions/0011).
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
    ICudaEngine,
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
from cascade_rt_export.trt_precision import NOTHING_KNOWN, Convolution, WorkShares, check_precision, work_shares
from cascade_rt_export.trt_progress import BuildProgress, BuildWatch, OnProgress, progress_monitor

Made = TypeVar("Made")

# The work of every convolution in both networks is proportional to the image area, so any size gives the same shares.
_COUNTING_SHAPE = (1, 1, 2 * SHORTEST_SIDE, 2 * SHORTEST_SIDE)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Facts about a compiled engine."""

    stage: Stage
    precision: Precision
    flavour: Flavour
    version: str
    """TensorRT version."""
    profiles: tuple[ShapeProfile, ...]
    options: BuildOptions
    onnx_sha256: str
    plan_sha256: str
    shares: WorkShares
    """Shares of the convolution work by number type."""
    proven_by: str
    """Source of the layers: `inspector` of the opened engine, or `build log` if the engine cannot be opened here."""
    layers: tuple[EngineLayer, ...]
    """All layers of the engine, or none if they cannot be read."""
    precision_doubt: str = ""
    """Why it is not proven that the engine computes in its precision, in one sentence. Empty if it is."""

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain values, without the layers (see `layers_to_json`)."""
        return {
            "stage": self.stage,
            "precision": self.precision,
            "flavour": self.flavour,
            "version": self.version,
            "onnx_sha256": self.onnx_sha256,
            "plan_sha256": self.plan_sha256,
            "convolution_work": self.shares.to_json(),
            "proven_by": self.proven_by,
            "precision_doubt": self.precision_doubt,
            "layers": len(self.layers),
        }


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A compiled engine and the facts about it."""

    plan: bytes
    facts: EngineFacts
    timings: bytes
    """Timing cache for the next build on this machine. Empty for TensorRT-RTX, which measures nothing."""


def go_on(_: BuildProgress) -> bool:
    """Ignore progress and let the build continue."""
    return True


OnBuild = Callable[[str], OnProgress]
"""Called with a sentence before an engine is compiled, which takes minutes. Returns the progress callback."""


def say_nothing(_: str) -> OnProgress:
    """Ignore builds and their progress."""
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
    """Compile a graph and verify that the engine computes in its precision.

    Only one build may run at a time in a process, because errors and layers are read from TensorRT's single log.

    Args:
        onnx_path: The graph, with its weights inside: float32 for `fp32`, from `half_precision_graph` for `fp16`.
        stage: The stage of the graph, which determines the shapes to compile for.
        config: The cascade that the graph belongs to.
        flavour: Which TensorRT. Both build for the local GPU. TensorRT-RTX does not need one and builds for the compute
            capability in `options`.
        precision: The expected precision of the graph. The engine is refused if it differs.
        options: Builder options.
        timings: `BuiltEngine.timings` of an earlier build on this machine.
        on_progress: Called after each step. The build is cancelled if it returns False, or on Ctrl-C.

    Raises:
        EngineBuildError: TensorRT does not accept the graph, the build failed or was cancelled, or the engine does not
            compute in its precision.
        BackendUnavailableError: TensorRT is not installed, or is too old.
        UsageError: The options are not valid for this TensorRT.
    """
    build = _Build(flavour, options, f"{onnx_path.name} with {flavour}")
    built = _build_and_inspect(build, _read_graph(onnx_path), stage, config, precision, timings, on_progress)
    if built.facts.precision_doubt:
        raise EngineBuildError(built.facts.precision_doubt)
    return built


def _build_and_inspect(
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
    engine = build.open(plan)
    layers: list[EngineLayer] = []
    shares, doubt = NOTHING_KNOWN, ""
    try:
        layers = build.read_layers(engine)
        shares = work_shares(layers, _convolutions(onnx.load_model_from_string(content), stage))
        check_precision(shares, precision, build.what)
    except EngineBuildError as error:
        # Whoever ships the engine must not go on; whoever only runs it here gets a warning.
        doubt = str(error)
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
        proven_by="build log" if engine is None else "inspector",
        layers=tuple(layers),
        precision_doubt=doubt,
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
    """Load an engine from the cache, or compile it and store it there.

    An engine whose precision is not proven is used nevertheless, because the proof depends on how a version of TensorRT
    describes its layers. The facts then give the reason as `precision_doubt`.

    Args:
        cache: The engine cache.
        machine: The machine that the engine is for.
        onnx_path: The graph; see `build_engine`.
        stage: The stage of the graph.
        config: The cascade that the graph belongs to.
        flavour: Which TensorRT.
        precision: The expected precision of the graph.
        options: Builder options.
        on_build: Called with the reason in a sentence if the engine has to be compiled. Returns the callback that
            `build_engine` calls after each step.

    Raises:
        OutputError: The engine cannot be stored.
        EngineBuildError: See `build_engine`, also for its other errors.
    """
    content = _read_graph(onnx_path)
    key = engine_key(content, stage, config, flavour=flavour, precision=precision, options=options, machine=machine)
    found = cache.load(key)
    if isinstance(found, CachedEngine):
        return found
    with cache.building(key):
        # Another process may have stored the engine while we waited for the lock.
        found = cache.load(key)
        if isinstance(found, CachedEngine):
            return found
        on_progress = on_build(found.reason)
        build = _Build(flavour, options, f"{onnx_path.name} with {flavour}")
        built = _build_and_inspect(build, content, stage, config, precision, cache.load_timings(key), on_progress)
        facts = {**built.facts.to_json(), "layer_list": layers_to_json(built.facts.layers)}
        cache.store(key, built.plan, facts)
        if built.timings:
            cache.store_timings(key, built.timings)
        return CachedEngine(built.plan, facts)


class _Build:
    """State of one build: the TensorRT package, its log, and errors that name the graph."""

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
        """Compile a graph. Returns the plan and the timing cache."""
        builder = self._builder()
        # The network refers to weights owned by the parser, so the parser must outlive the build.
        network, _parser = self._network(builder, content)
        config = self._config(builder, stage, profiles)
        cache = self._start_timings(config, timings)
        config.progress_monitor = progress_monitor(self.trt, watch)
        with watch.holding_signals():
            memory = builder.build_serialized_network(network, config)
        watch.reraise()
        if watch.cancelled:
            raise EngineBuildError(f"{self.what}: the build was canceled; there is no engine")
        plan = bytes(self._made(memory, "the engine cannot be built"))
        return plan, self._end_timings(config) if cache else b""

    def open(self, plan: bytes) -> ICudaEngine | None:
        """Return the engine of a plan, or None if the build log says all that could be asked of it.

        An engine built ahead of time is for another machine, and without a driver no engine can be opened.
        """
        if self.flavour == "tensorrt_rtx" and self.log.layers:
            return None
        runtime = self._made(self.trt.Runtime(self.log.logger), "cannot create a runtime")
        return self._made(runtime.deserialize_cuda_engine(plan), "the engine cannot be opened")

    def read_layers(self, engine: ICudaEngine | None) -> list[EngineLayer]:
        """Return the layers of the engine built last, which may be open.

        Raises:
            EngineBuildError: They cannot be read.
        """
        if engine is None:
            return layers_from_log(self.log.layers)
        inspector = self._made(engine.create_engine_inspector(), "the engine cannot be inspected")
        return layers_from_json(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))

    def _builder(self) -> Builder:
        try:
            return self._made(self.trt.Builder(self.log.logger), "cannot create a builder")
        except TypeError as error:
            # The bindings raise this when the library returns null, for example without a driver.
            raise self._failure("cannot create a builder; does nvidia-smi run?") from error

    def _network(self, builder: Builder, content: bytes) -> tuple[INetworkDefinition, OnnxParser]:
        strongly_typed = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = self._made(builder.create_network(1 << int(strongly_typed)), "cannot create a network")
        if not network.get_flag(strongly_typed):
            raise self._failure("the network is not strongly typed, so its precision would not be that of the graph")
        parser = self._made(self.trt.OnnxParser(network, self.log.logger), "cannot create a parser")
        if not parser.parse(content):
            raise EngineBuildError(f"{self.what}: {_parser_errors(parser) or self.log.last_error}; export it again")
        return network, parser

    def _config(self, builder: Builder, stage: Stage, profiles: tuple[ShapeProfile, ...]) -> IBuilderConfig:
        trt = self.trt
        config = self._made(builder.create_builder_config(), "cannot create a builder config")
        # TF32 is on by default and would round the inputs of float32 convolutions to 10 bits.
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
        profile = self._made(builder.create_optimization_profile(), "cannot create a profile")
        for tensor in STAGE_SPECS[stage].inputs:
            try:
                profile.set_shape(tensor.name, shapes.smallest, shapes.usual, shapes.largest)
            except ValueError as error:
                raise self._failure(f"a profile {shapes} cannot be set") from error
        if config.add_optimization_profile(profile) < 0:
            raise self._failure(f"does not accept images from {shapes.smallest} to {shapes.largest}")

    def _start_timings(self, config: IBuilderConfig, timings: bytes) -> bool:
        """Give the builder an earlier timing cache, or an empty one if it is from other versions.

        Returns whether a timing cache is used at all.
        """
        if self.flavour == "tensorrt_rtx":
            return False
        cache = self._made(config.create_timing_cache(timings), "cannot create a timing cache")
        if not config.set_timing_cache(cache, False):
            cache = self._made(config.create_timing_cache(b""), "cannot create a timing cache")
            if not config.set_timing_cache(cache, False):
                raise self._failure("the timing cache is rejected")
        return True

    def _end_timings(self, config: IBuilderConfig) -> bytes:
        cache = self._made(config.get_timing_cache(), "the timing cache is missing")
        return bytes(self._made(cache.serialize(), "the timing cache cannot be saved"))

    def _made(self, thing: Made | None, problem: str) -> Made:
        """Return an object, or raise if TensorRT returned None."""
        if thing is None:
            raise self._failure(problem)
        return thing

    def _failure(self, problem: str) -> EngineBuildError:
        return EngineBuildError(f"{self.what}: {problem} ({self.log.last_error})")


def _check_options(flavour: Flavour, options: BuildOptions) -> None:
    if flavour == "tensorrt" and options.compute_capability is not None:
        raise UsageError("tensorrt builds for the installed GPU; use a compute capability only with tensorrt_rtx")
    if not 0 <= options.optimization_level <= 5:
        raise UsageError(f"the optimization level must be from 0 to 5, got {options.optimization_level}")
    if options.workspace_bytes is not None and options.workspace_bytes <= 0:
        raise UsageError(f"the workspace must be positive, got {options.workspace_bytes}")


def _read_graph(path: Path | BundleFile) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineBuildError(f"{path}: cannot be read ({error.strerror}); use an ONNX graph of a bundle") from error


def _parser_errors(parser: OnnxParser) -> str:
    """Return a sentence that lists the nodes that the parser refused."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(
        f"node {error.node_name()!r} ({error.node_operator()}) is rejected: {' '.join(error.desc().split())}"
        for error in errors
    )


def _convolutions(graph: ModelProto, stage: Stage) -> Mapping[str, Convolution]:
    """Return the convolutions of a graph by name."""
    inputs = {tensor.name: np.zeros(_COUNTING_SHAPE, dtype=tensor.dtype) for tensor in STAGE_SPECS[stage].inputs}
    work = multiplications(graph, inputs)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    return {
        node.name: Convolution(work[node.name], sizes[node.input[1]]) for node in graph.graph.node if node.name in work
    }
