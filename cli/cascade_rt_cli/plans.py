"""Provide TensorRT engines to the command line, compiled here with the export package."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.engines.plans import Plan
from cascade_rt_cli.console import progress_bar
from cascade_rt_cli.messages import needs_extra

if TYPE_CHECKING:
    from cascade_rt_export.trt_build import OnBuild
    from cascade_rt_export.trt_progress import BuildProgress, OnProgress


def plans(bundle: Bundle, stage: Stage, precision: Precision, device: int) -> Plan:
    """Load an engine from the cache, or compile it and report the build."""
    with needs_extra("gpu"):
        from cascade_rt_export.plans import built_plans
    with shown_builds() as on_build:
        return built_plans(on_build)(bundle, stage, precision, device)


@contextmanager
def shown_builds() -> Iterator["OnBuild"]:
    """Print which engine is being compiled, and show its steps in a progress bar."""
    with progress_bar() as progress:

        def begin(what: str) -> "OnProgress":
            click.echo(f"compiling {what}", err=True)
            bar = progress.add_task("", total=None)

            def show(step: "BuildProgress") -> bool:
                # Show only the outermost phase, because nested phases restart repeatedly.
                if step.inside is None:
                    progress.update(bar, description=step.phase, completed=step.step, total=step.steps)
                return True

            return show

        yield begin
