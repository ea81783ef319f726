"""Print a diagnosis for human readers."""

from collections.abc import Iterator

from rich.console import Console

from cascade_rt.engines.doctor import Diagnosis, Finding
from cascade_rt_cli.console import printable, results_console


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print installed versions, which libraries work, and which backends run the embedded bundle."""
    console = results_console()
    _print_section(console, "versions", _versions(diagnosis))
    _print_section(console, "libraries, on a convolution", _findings(diagnosis.libraries))
    _print_section(console, "backends, on the embedded bundle", _findings(diagnosis.backends))
    console.print(f"--backend auto takes {diagnosis.best or 'nothing: no backend runs here'}", style="bold")


def _print_section(console: Console, title: str, rows: Iterator[tuple[str, str]]) -> None:
    console.print(title, style="bold")
    for name, text in rows:
        console.print(f"  {name:<21}{printable(text)}")


def _versions(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    for name, version in diagnosis.versions.items():
        yield name, version or "not installed"
    gpu = diagnosis.gpu
    if gpu is None:
        yield "NVIDIA GPU", f"none: {diagnosis.no_gpu}"
        return
    major, minor = gpu.compute_capability
    yield "NVIDIA GPU", f"{gpu.name}, compute capability {major}.{minor}, {gpu.memory_bytes / 2**30:.0f} GiB"
    yield "NVIDIA driver", f"{gpu.driver or 'version unknown'}, runs CUDA up to {gpu.cuda}"


def _findings(findings: tuple[Finding, ...]) -> Iterator[tuple[str, str]]:
    for finding in findings:
        yield finding.name, f"{'works' if finding.works else 'no'}: {finding.text}"
        if finding.fix:
            yield "", f"mend it: {finding.fix}"
