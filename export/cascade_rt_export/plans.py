"""Compile the engines of a bundle: into the cache for the local GPU, or into a folder for other machines."""

import json
from dataclasses import asdict
from pathlib import Path

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.outputs import check_file, make_folder
from cascade_rt.common.tensors import STAGES, Precision, Stage
from cascade_rt.engines.engine_cache import BuildOptions, EngineCache, Machine
from cascade_rt.engines.nvidia import on_device, require_gpu
from cascade_rt.engines.plans import Plan, PlanSource
from cascade_rt_export.trt_build import EngineFacts, OnBuild, build_engine, cached_engine, say_nothing
from cascade_rt_export.trt_layers import layers_to_json


def built_plans(on_build: OnBuild = say_nothing) -> PlanSource:
    """Make the plan source for `open_engines`: TensorRT engines for a GPU of this machine.

    Engines are loaded from the cache, or compiled from the bundle and stored there.

    Args:
        on_build: Called with the reason before an engine is compiled.
    """

    def plan(bundle: Bundle, stage: Stage, precision: Precision, device: int = 0) -> Plan:
        gpu = require_gpu("tensorrt", device)
        # TensorRT measures kernels on the GPU that is current.
        with on_device(device):
            engine = cached_engine(
                EngineCache(),
                Machine.of_gpu(gpu),
                bundle.graph(stage, precision),
                stage,
                bundle.manifest.config,
                flavour="tensorrt",
                precision=precision,
                on_build=lambda reason: on_build(f"{stage} in {precision} for {gpu}: {reason}"),
            )
        return Plan(engine.plan, precision, engine.facts.get("precision_doubt", ""))

    return plan


def write_plans(
    bundle: Bundle,
    folder: Path,
    options: BuildOptions = BuildOptions(),  # noqa: B008 - frozen
    *,
    overwrite: bool = False,
    on_build: OnBuild = say_nothing,
) -> tuple[EngineFacts, ...]:
    """Compile TensorRT-RTX engines for GPUs that need not be present, and write them with their facts.

        FOLDER/stage1_fp16.plan    the compiled engine: executable code, to be run only if its source is trusted
        FOLDER/stage1_fp16.json    its source, SHA-256, layers and their precision

    Args:
        bundle: The bundle. An engine is compiled from each of its graphs.
        folder: Output folder. It is created if missing.
        options: Builder options. The compute capability selects the GPU.
        overwrite: Replace existing engines.
        on_build: Called before each build.

    Returns:
        The facts about each engine.

    Raises:
        EngineBuildError: An engine cannot be built, or does not compute in its precision.
        BackendUnavailableError: TensorRT-RTX is not installed, or is too old.
        UsageError: TensorRT-RTX does not support this GPU.
        OutputExistsError: An engine exists and `overwrite` is off. Nothing is built.
        OutputError: The folder cannot be written.
    """
    make_folder(folder)
    graphs = {f"{stage}_{precision}": (stage, precision) for precision in bundle.precisions for stage in STAGES}
    for name in graphs:
        for suffix in (".plan", ".json"):
            check_file(folder / f"{name}{suffix}", overwrite=overwrite)
    return tuple(
        _write_plan(bundle, stage, precision, folder / name, options, overwrite, on_build)
        for name, (stage, precision) in graphs.items()
    )


def _write_plan(
    bundle: Bundle,
    stage: Stage,
    precision: Precision,
    path: Path,
    options: BuildOptions,
    overwrite: bool,
    on_build: OnBuild,
) -> EngineFacts:
    on_progress = on_build(f"{stage} in {precision}")
    built = build_engine(
        bundle.graph(stage, precision),
        stage,
        bundle.manifest.config,
        flavour="tensorrt_rtx",
        precision=precision,
        options=options,
        on_progress=on_progress,
    )
    facts = {
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        **built.facts.to_json(),
        "options": asdict(options),
        "profiles": [asdict(profile) for profile in built.facts.profiles],
        "layer_list": layers_to_json(built.facts.layers),
    }
    write_bytes(path.with_suffix(".plan"), built.plan, overwrite=overwrite)
    write_bytes(path.with_suffix(".json"), json.dumps(facts, indent=1).encode(), overwrite=overwrite)
    return built.facts
