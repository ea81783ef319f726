"""`cascade-rt doctor`: show what runs on this machine."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from cascade_rt.common.packages import pip_install
from cascade_rt.errors import BackendUnavailableError
from cascade_rt_cli.console import results_console, spinner
from cascade_rt_cli.messages import printable
from cascade_rt_cli.plans import plans

if TYPE_CHECKING:
    from cascade_rt.engines.doctor import Diagnosis, Finding


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def doctor(as_json: bool) -> None:
    """Run every engine on a small graph and on the embedded bundle; show what works, and how to fix what does not.

    The exit code is 0 if at least one engine runs the embedded bundle, otherwise 7.
    """
    from cascade_rt.engines.doctor import examine

    with spinner() as say:
        say("trying every engine")
        diagnosis = examine(plans)
    if as_json:
        click.echo(json.dumps(diagnosis.to_json(), indent=2, ensure_ascii=False))
    else:
        _print_diagnosis(diagnosis)
    if diagnosis.best is None:
        raise BackendUnavailableError(f"no engine runs the embedded bundle here; run: {pip_install('cpu')}")


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    """Print installed versions, which libraries work, and which backends run the embedded bundle."""
    console = results_console()
    for title, rows in (
        ("versions", _versions(diagnosis)),
        ("packages that exclude each other", _findings(diagnosis.clashes)),
        ("libraries, on a convolution", _findings(diagnosis.libraries)),
        ("backends, on the embedded bundle", _findings(diagnosis.backends)),
    ):
        lines = [f"  {name:<21}{printable(text)}" for name, text in rows]
        if lines:
            console.print(title, style="bold")
        for line in lines:
            console.print(line)
    console.print(f"--backend auto uses {diagnosis.best or 'nothing: no backend runs here'}", style="bold")


def _versions(diagnosis: "Diagnosis") -> Iterator[tuple[str, str]]:
    for name, version in diagnosis.versions.items():
        yield name, version or "not installed"
    gpu = diagnosis.gpu
    if gpu is None:
        yield "NVIDIA GPU", f"none: {diagnosis.no_gpu}"
        return
    for each in diagnosis.gpus:
        major, minor = each.compute_capability
        memory = f"{each.memory_bytes / 2**30:.0f} GiB"
        yield f"NVIDIA GPU {each.index}", f"{each.name}, compute capability {major}.{minor}, {memory}"
    yield "NVIDIA driver", f"{gpu.driver or 'version unknown'}, runs CUDA up to {gpu.cuda}"
    if gpu.unsupported:
        yield "", f"too old: {gpu.unsupported}"


def _findings(findings: "Iterable[Finding]") -> Iterator[tuple[str, str]]:
    for finding in findings:
        yield finding.name, f"{'works' if finding.works else 'no'}: {finding.text}"
        if finding.fix:
            yield "", f"to fix it: {finding.fix}"
