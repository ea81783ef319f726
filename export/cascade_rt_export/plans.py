"""Engines of TensorRT for the GPU of this machine: from the cache, or compiled from the bundle and kept there."""

from collections.abc import Callable

from cascade_rt.bundle import Bundle
from cascade_rt.engines.engine_cache import EngineCache, Machine
from cascade_rt.engines.nvidia import require_gpu
from cascade_rt.engines.plans import Plan, PlanSource
from cascade_rt.tensors import Precision, Stage
from cascade_rt_export.trt_build import cached_engine


def built_plans(on_build: Callable[[str], None] = lambda _: None) -> PlanSource:
    """Make the source of plans that `open_engines` asks.

    Args:
        on_build: Called with the reason in a sentence, before an engine is compiled, which takes minutes.
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
            on_build=on_build,
        )
        return Plan(engine.plan, precision)

    return plan
