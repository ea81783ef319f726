"""Where the command line gets TensorRT engines from: compiled here, where the export package can be used."""

import click

from cascade_rt.bundle import Bundle
from cascade_rt.engines.plans import Plan
from cascade_rt.tensors import Precision, Stage
from cascade_rt_cli.missing import needs_extra


def plans(bundle: Bundle, stage: Stage, precision: Precision) -> Plan:
    """Take an engine from the cache, or compile it and say so."""
    with needs_extra("export"):
        from cascade_rt_export.plans import built_plans

    def say(reason: str) -> None:
        click.echo(f"compiling the {precision} engine of {stage} for this GPU: {reason}", err=True)

    return built_plans(say)(bundle, stage, precision)
