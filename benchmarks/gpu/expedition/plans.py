"""Where the processes of a benchmark get engines of TensorRT from. They import nothing else of an expedition."""

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.engines.plans import Plan


def plans(bundle: Bundle, stage: Stage, precision: Precision) -> Plan:
    """An engine from the cache of this machine, or compiled now."""
    from cascade_rt_export.plans import built_plans

    return built_plans()(bundle, stage, precision)
