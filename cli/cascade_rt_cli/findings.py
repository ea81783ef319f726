"""Print what was found in one scan, from its report."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cascade_rt_cli.console import print_rows
from cascade_rt_cli.messages import printable, shown

if TYPE_CHECKING:
    from cascade_rt.run.case import Case

_MOST_LESIONS = 3


def print_findings(console: Console, case: "Case", report: Mapping[str, Any]) -> None:
    """Print the findings in one scan, the output paths, the timings and the engine."""
    from cascade_rt.results.segmentation import STATUS_SENTENCES

    console.print(f"{printable(shown(case.scan))}: {STATUS_SENTENCES[report['status']]}", style="bold")
    print_rows(console, (*_findings(report), *run_rows(case, report)), indent=2)


def findings_line(report: Mapping[str, Any]) -> str:
    """Return the findings in one scan on one line."""
    from cascade_rt.results.segmentation import STATUS_SENTENCES

    volumes = {"pancreas": report["volumes_ml"]["pancreas"], "tumor": report["volumes_ml"]["tumor"]}
    told = ", ".join(f"{name} {volume_text(volume)}" for name, volume in volumes.items() if volume is not None)
    doubts = f", {len(report['warnings'])} warnings" if report["warnings"] else ""
    return f"{STATUS_SENTENCES[report['status']]}; {told}; {report['wall_s']:.2f} s{doubts}"


def print_intended_use(console: Console, bundle: Mapping[str, Any]) -> None:
    """Print the intended use of a bundle, given as in the provenance of a report."""
    console.print(f"Bundle {bundle['name']}: {bundle['intended_use']}", style="yellow")


def volume_text(volume_ml: float) -> str:
    """Format a volume in ml. A nonzero volume is never shown as 0."""
    return "under 0.1 ml" if 0 < volume_ml < 0.05 else f"{volume_ml:.1f} ml"


def run_rows(case: "Case", report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield rows with the output paths, the timings, the engine and the warnings of a scan."""
    engine = report["provenance"]["engine"]
    yield "mask", shown(case.mask)
    yield "report", shown(case.report)
    for extra in case.extras:
        path = case.extra_path(extra)
        # Whether a page can be mailed depends on its size.
        size = f" ({path.stat().st_size / 1e6:.1f} MB)" if extra == "page" and path.is_file() else ""
        yield extra, f"{shown(path)}{size}"
    steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in report["timings_s"].items())
    yield "time", f"{report['wall_s']:.2f} s ({steps})"
    yield "engine", f"{engine['backend']} {engine['version']} on {engine['device']}, {engine['precision']}"
    for reason in report["provenance"]["engines_passed_over"]:
        yield "", reason
    for warning in report["warnings"]:
        yield "warning", f"{warning['code']}: {warning['message']}"


def _findings(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    volumes, slices, lesions, islands = (report[name] for name in ("volumes_ml", "slices", "lesions", "islands"))
    if volumes["organ"] is not None:
        with_tumor = "" if volumes["tumor"] is None else f", with tumor {volume_text(volumes['organ'])}"
        where = f"in {slices['with_organ']} of {slices['total']} slices"
        yield "pancreas", f"{volume_text(volumes['pancreas'])}{with_tumor}, {where}"
    if volumes["tumor"] is None:
        yield "tumor", "not looked for: this bundle finds only the pancreas"
    else:
        yield "tumor", f"{volume_text(volumes['tumor'])} in {slices['with_tumor']} slices"
    for lesion in lesions[:_MOST_LESIONS]:
        score = "" if lesion["score"] is None else f", score {lesion['score']:.2f}"
        size = f"{lesion['volume_ml']:.2f} ml, as large as a sphere of {lesion['diameter_mm']:.0f} mm"
        yield "", f"lesion of {size}{score}"
    if len(lesions) > _MOST_LESIONS:
        yield "", f"and {len(lesions) - _MOST_LESIONS} smaller"
    if islands["components"] is not None and islands["kept"] != islands["components"]:
        dropped = islands["components"] - (islands["kept"] or 0)
        yield "dropped", f"{volume_text(islands['ml_dropped'])}: {dropped} of {islands['components']} pieces found"
