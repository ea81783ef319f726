"""Engines of a bundle: for the GPU of this machine, in the cache, or written to a folder for machines elsewhere."""

import json
from dataclasses import asdict
from pathlib import Path

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.outputs import check_file, make_folder
from cascade_rt.common.tensors import STAGES, Precision, Stage
from cascade_rt.engines.engine_cache import BuildOptions, EngineCache, Machine
from cascade_rt.engines.nvidia import require_gpu
from cascade_rt.engines.plans import Plan, PlanSource
from cascade_rt_export.trt_build import EngineFacts, OnBuild, build_engine, cached_engine, say_nothing
from cascade_rt_export.trt_layers import layers_to_json


def built_plans(on_build: OnBuild = say_nothing) -> PlanSource:
    """Make the source of plans that `open_engines` asks: engines of TensorRT for the GPU of this machine.

    They come from the cache, or are compiled from the bundle and kept there.

    Args:
        on_build: Called before an engine is compiled, with the reason.
    """

    def plan(bundle: Bundle, stage: Stage, precision: Precision) -> Plan:
        machine = Machine.of_gpu(require_gpu("tensorrt"))
        engine = cached_engine(
            EngineCache(),
            machine,
            bundle.graph(stage, precision),
            stage,
            bundle.manifest.config,
            flavour="tensorrt",
            precision=precision,
            on_build=lambda reason: on_build(f"{stage} in {precision} for this GPU: {reason}"),
        )
        return Plan(engine.plan, precision)

    return plan


def write_plans(
    bundle: Bundle,
    folder: Path,
    options: BuildOptions = BuildOptions(),  # noqa: B008 - frozen
    *,
    overwrite: bool = False,
    on_build: OnBuild = say_nothing,
) -> tuple[EngineFacts, ...]:
    """Compile engines of TensorRT-RTX for GPUs that need not be there, and write them beside what is known of them.

        FOLDER/stage1_fp16.plan    what TensorRT-RTX compiled: a program, for those who trust where it comes from
        FOLDER/stage1_fp16.json    what it was made of, its SHA-256, its layers and their precision

    Args:
        bundle: The bundle; an engine is made of each of its graphs.
        folder: Where they go; it is made where it is missing.
        options: What the builder is asked for; its compute capability names the GPU.
        overwrite: Replace engines that are there.
        on_build: Called before each build.

    Returns:
        What is known of each engine.

    Raises:
        EngineBuildError: An engine cannot be built, or does not compute in its precision.
        BackendUnavailableError: TensorRT-RTX is not installed, or is too old.
        UsageError: It builds for no such GPU.
        OutputExistsError: An engine is there and `overwrite` is off; nothing was built.
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
