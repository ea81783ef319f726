"""The numbers of a report as HTML: every value is escaped here."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from cascade_rt.results.segmentation import STATUS_SENTENCES

MOST_LESIONS = 50
"""Lesions listed on a page; speckle has thousands."""
_TIMES, _TO, _NONE = " \N{MULTIPLICATION SIGN} ", "\N{EN DASH}", "\N{EN DASH}"
_CERTAIN = frozenset({"ok", "no_tumor", "organ_only", "tumor_only", "no_tumor_only"})

Report = Mapping[str, Any]


def page_facts(report: Report, resolution: str) -> dict[str, str]:
    """Return the HTML of a report, by the marker of the template.

    Args:
        report: As from `Segmentation.to_json`.
        resolution: A sentence that says at which resolution the scan is shown.
    """
    return {
        "case": escape(report["case"]),
        "finding": escape(STATUS_SENTENCES[report["status"]]),
        "finding_class": "" if report["status"] in _CERTAIN else "doubtful",
        "intended_use": escape(report["intended_use"]),
        "volumes": "".join(_volumes(report)),
        "lesions": _lesions(report),
        "warnings": _warnings(report["warnings"]),
        "shown": f'<div class="shown">{"".join(f"<p>{escape(line)}</p>" for line in _shown(report, resolution))}</div>',
        "provenance": "".join(_row(name, value) for name, value in _provenance(report)),
    }


def _row(name: str, value: str) -> str:
    return f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'


def _ml(volume: float) -> str:
    return "under 0.1 ml" if 0 < volume < 0.05 else f"{volume:.1f} ml"


def _volumes(report: Report) -> Iterator[str]:
    volumes, slices = report["volumes_ml"], report["slices"]
    entries = (
        ("Pancreas with tumor" if volumes["tumor"] is not None else "Pancreas", "organ", "pancreas", "with_organ"),
        ("Tumor", "tumor", "tumor", "with_tumor"),
    )
    for name, key, color, count in entries:
        volume = volumes[key]
        text = "not looked for" if volume is None else f"{_ml(volume)} in {slices[count]} of {slices['total']} slices"
        title = f'<span class="key {color}"></span>{escape(name)}'
        yield f'<tr><th scope="row">{title}</th><td>{escape(text)}</td></tr>'
    if volumes["pancreas"] is not None and volumes["tumor"]:
        yield _row("Pancreas without tumor", _ml(volumes["pancreas"]))


def _lesions(report: Report) -> str:
    """Return the table of lesions, or nothing if the bundle does not look for tumors."""
    if report["volumes_ml"]["tumor"] is None:
        return ""
    found = report["lesions"]
    title = f'<h2 id="lesions-title">Lesions: {len(found)}</h2>'
    if not found:
        return f'<section aria-labelledby="lesions-title">{title}<p class="note">No tumor was marked.</p></section>'
    columns = ("Volume", "Diameter", "Score", "Slices")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("#", *columns))
    body = "".join(_lesion(number, lesion) for number, lesion in enumerate(found[:MOST_LESIONS], start=1))
    table = f'<table class="lesions" id="lesions"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    notes = ["Choose a lesion to go to its center. Diameter: longest in one axial slice. Score: the largest tumor "
             "probability as the network gives it, which is not a probability of disease."]  # fmt: skip
    if len(found) > MOST_LESIONS:
        notes.insert(0, f"{len(found) - MOST_LESIONS} smaller ones are in the report only.")
    return (
        f'<section aria-labelledby="lesions-title">{title}{table}'
        f"{''.join(f'<p class=note>{escape(note)}</p>' for note in notes)}</section>"
    )


def _lesion(number: int, lesion: Report) -> str:
    first, last = lesion["first_slice"] + 1, lesion["last_slice"] + 1
    cells = (
        f"{number}",
        f"{lesion['volume_ml']:.2f} ml",
        f"{lesion['longest_axial_diameter_mm']:.0f} mm",
        _NONE if lesion["score"] is None else f"{lesion['score']:.2f}",
        f"{first}" if first == last else f"{first}{_TO}{last}",
    )
    apart = ' title="apart from the pancreas"' if lesion["touches_pancreas"] is False else ""
    inside = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr data-lesion="{number}" id="row-{number}"{apart}>{inside}</tr>'


def _warnings(warnings: Iterable[Report]) -> str:
    lines = [f"<li><code>{escape(each['code'])}</code>{escape(each['message'])}</li>" for each in warnings]
    body = f'<ul class="warnings">{"".join(lines)}</ul>' if lines else '<p class="note">None.</p>'
    return (
        f'<section aria-labelledby="warnings-title"><h2 id="warnings-title">Warnings: {len(lines)}</h2>{body}</section>'
    )


def _shown(report: Report, resolution: str) -> Iterator[str]:
    """Yield sentences about what is on the page, and what the networks saw."""
    yield "Patient's right is on the left (R), as in radiology."
    yield resolution
    grid, spacing = report["geometry"]["working_grid"], report["geometry"]["spacing_mm"]
    if grid is None:
        yield "The networks saw the scan's own pixels; nothing was resampled."
    else:
        yield (
            f"The networks saw slices resampled from {_sizes(spacing[1:])} mm to {_sizes(grid['pixel_mm'])} mm; "
            "the mask lies on the scan's own pixels."
        )
    search, islands = report["search"], report["islands"]
    if search["slices_left_out"]:
        yield f"{search['slices_left_out']} slices were not searched, as none of those near them showed a pancreas."
    if search["body_box"] is not None:
        yield "The search was confined to a box around the body."
    if islands["voxels_dropped"]:
        yield f"Separate pieces of {_ml(islands['ml_dropped'])} in all were dropped from the mask."
    if report["slices"]["scattered"]:
        yield "The slices were said to be unrelated to one another, so nothing was judged across them."


def _sizes(values: Iterable[float]) -> str:
    return _TIMES.join(f"{value:.2f}" for value in values)


def _provenance(report: Report) -> Iterator[tuple[str, str]]:
    made, geometry = report["provenance"], report["geometry"]
    engine = made["engine"]
    yield "Bundle", made["bundle"]["name"]
    yield "SHA-256 of the bundle", made["bundle"]["sha256"]
    yield "Engine", f"{engine['backend']} {engine['version']} on {engine['device']}, {engine['precision']}"
    if made["engines_passed_over"]:
        yield "Engines passed over", "; ".join(made["engines_passed_over"])
    yield "Versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    size = _TIMES.join(str(side) for side in reversed(geometry["shape"]))
    spacing = _sizes(reversed(geometry["spacing_mm"]))
    yield "Scan", f"{size} voxels of {spacing} mm, stored as {geometry['file']['orientation']}"
    for name, key in (("SHA-256 of the scan", "input"), ("SHA-256 of the mask", "output")):
        if report[key] is not None:
            yield name, report[key]["sha256"]
    for stage, sha256 in made["graphs"].items():
        yield f"SHA-256 of {stage.replace('stage', 'stage ')}", sha256
