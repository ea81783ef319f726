"""Where the command line gets TensorRT engines from: compiled here, where the export package can be used."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.engines.plans import Plan
from cascade_rt_cli.console import progress_bar
from cascade_rt_cli.optional_dependency import needs_extra

if TYPE_CHECKING:
    from cascade_rt_export.trt_build import OnBuild
    from cascade_rt_export.trt_progress import BuildProgress, OnProgress


def plans(bundle: Bundle, stage: Stage, precision: Precision) -> Plan:
    """Take an engine from the cache, or compile it and say so."""
    with needs_extra("export"):
        from cascade_rt_export.plans import built_plans
    with shown_builds() as on_build:
        return built_plans(on_build)(bundle, stage, precision)


@contextmanager
def shown_builds() -> Iterator["OnBuild"]:
    """Say which engine is being compiled, and show its steps on a terminal."""
    with progress_bar() as progress:

        def begin(what: str) -> "OnProgress":
            click.echo(f"compiling {what}", err=True)
            bar = progress.add_task("", total=None)

            def show(step: "BuildProgress") -> bool:
                # Only the outermost phase: those inside begin again and again.
                if step.inside is None:
                    progress.update(bar, description=step.phase, completed=step.step, total=step.steps)
                return True

            return show

        yield begin
