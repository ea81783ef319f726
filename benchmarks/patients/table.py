"""The measurement as Markdown, for a model card."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]
_SETS = {"slices": "slices of patients", "scans": "whole scans"}
_KEPT = {"all": "as found", "largest": "largest component only"}
_DIGITS = {"dice": 3, "sensitivity": 3, "specificity": 4}
"""Nearly all of a slice is background, so that every specificity is close to 1."""
_AGGREGATIONS = {"per_slice": "per slice", "per_case": "per patient", "pooled": "all voxels pooled"}


def model_card(lines: Sequence[Line]) -> Iterator[str]:
    """All tables there is something for, with blank lines between; the lines are those of the results file."""
    by_kind: dict[str, list[Line]] = {}
    for line in lines:
        by_kind.setdefault(line["kind"], []).append(line)
    tables = (
        overlap_table(by_kind.get("summary", ())),
        shape_table([line for line in by_kind.get("summary", ()) if line["set"] == "scans"]),
        case_table([line for line in by_kind.get("case", ()) if line["set"] == "scans"]),
        false_table(
            by_kind.get("without_organ", ()), by_kind.get("summary_without_organ", ()), by_kind.get("negatives", ())
        ),
        agreement_table(by_kind.get("agreement", ()), by_kind.get("left_out", ())),
    )
    for table in map(list, tables):
        if table:
            yield from table
            yield ""
    for machine in by_kind.get("machine", ()):
        yield _measured_with(machine, by_kind.get("summary", ()))


def overlap_table(summaries: Iterable[Line]) -> Iterator[str]:
    """Dice, SEN and SPE in three aggregations."""
    rows = []
    for line in summaries:
        for key, name in _AGGREGATIONS.items():
            found = line[key]
            what = f"{_SETS[line['set']]}, {_KEPT[line['masks']]}" if line["set"] == "scans" else _SETS[line["set"]]
            count = line["cases"] if key == "pooled" else found["dice"]["count"]
            unit = "slice" if key == "per_slice" else "patient"
            values = [_with_interval(found[metric], digits) for metric, digits in _DIGITS.items()]
            rows.append((what, f"{name}, {_counted(count, unit)}", *values))
    yield from _table(("pancreas", "mean over", "Dice (95 %)", "SEN (95 %)", "SPE (95 %)"), rows)


def shape_table(summaries: Iterable[Line]) -> Iterator[str]:
    """Surfaces, components and volumes of whole scans."""
    names = {
        "hd95_mm": ("HD95, mm", 1),
        "surface_dice_2mm": ("surface Dice at 2 mm", 3),
        "components": ("components", 1),
        "true_ml": ("true volume, ml", 1),
        "found_ml": ("found volume, ml", 1),
        "absolute_volume_error_ml": ("absolute error of the volume, ml", 1),
    }
    rows = []
    for line in summaries:
        values = [_with_interval(line[key], digits) for key, (_, digits) in names.items()]
        undefined = line["cases"] - line["hd95_mm"]["count"]
        if undefined:
            values[0] += f", {undefined} undefined"
        rows.append((_KEPT[line["masks"]], str(line["cases"]), *values))
    yield from _table(("mean of whole scans", "patients", *(name for name, _ in names.values())), rows)


def case_table(cases: Iterable[Line]) -> Iterator[str]:
    """Each whole scan."""
    rows = []
    for line in cases:
        raw, largest = line["masks"]["all"], line["masks"]["largest"]
        rows.append(
            (
                line["case"],
                f"{line['slices_with_pancreas']} of {line['slices']}",
                f"{raw['dice']:.3f}",
                f"{largest['dice']:.3f}",
                f"{_number(raw['hd95_mm'], 1)} / {_number(largest['hd95_mm'], 1)}",
                f"{_number(raw['surface_dice_2mm'], 3)} / {_number(largest['surface_dice_2mm'], 3)}",
                f"{raw['components']:.0f}",
                f"{raw['true_ml']:.1f} / {raw['found_ml']:.1f} / {largest['found_ml']:.1f}",
            )
        )
    columns = ("scan", "slices with pancreas", "Dice", "largest only", "HD95, mm: all / largest")
    yield from _table((*columns, "surface Dice: all / largest", "components", "ml: true / found / largest"), rows)


def false_table(parts: Iterable[Line], summaries: Iterable[Line], negatives: Iterable[Line]) -> Iterator[str]:
    """What was found where there is no pancreas."""
    rows = [
        (
            f"{line['case']}, {line['part']} the pancreas",
            f"{line['slices_with_found']} of {line['slices']}",
            f"{line['false_ml']:.1f} ml, its largest component {line['false_ml_largest']:.1f} ml",
        )
        for line in parts
    ]
    rows += [
        (
            f"all {line['parts']} parts of {_counted(line['scans'], 'scan')}",
            f"{line['slices_with_found']} of {line['slices']}",
            f"mean of a part {line['false_ml_mean']:.1f} ml (worst {line['false_ml_worst']:.1f}), "
            f"its largest component {line['false_ml_largest_mean']:.1f} ml",
        )
        for line in summaries
    ]
    rows += [
        (
            f"{line['name']} (such slices may have been trained on)",
            f"{line['slices_with_found']} of {line['slices']}",
            f"{line['false_cm2_per_slice']:.2f} cm2 a slice at a nominal {line['nominal_pixel_mm']} mm",
        )
        for line in negatives
    ]
    yield from _table(("without pancreas", "slices with some found", "found, all of it false"), rows)


def agreement_table(summaries: Iterable[Line], left_out: Iterable[Line]) -> Iterator[str]:
    """Engines beside PyTorch."""
    rows = [
        (
            name,
            str(found["cases"]),
            f"{_number(found['dice_mean'], 5)} (worst {_number(found['dice_min'], 5)})",
            f"{found['different_voxels']} (at most {found['different_voxels_worst']} in one)",
            f"{found['different_voxels_per_100_000']:.3f}",
        )
        for line in summaries
        for name, found in line["engines"].items()
    ]
    yield from _table(("engine", "patients", "mean Dice with PyTorch", "voxels that differ", "of 100,000"), rows)
    for line in left_out:
        yield ""
        yield f"Not measured: {line['engine']}: {line['reason']}"


def _measured_with(machine: Line, summaries: Sequence[Line]) -> str:
    engine = machine["engine"]
    text = (
        f"Measured at commit `{machine['commit'] or 'unknown'}` with bundle `{machine['bundle']['sha256'][:12]}`, "
        f"{engine['backend']} {engine['version']} in {engine['precision']} on {machine['processor']}."
    )
    if not summaries:
        return text
    bootstrap = summaries[0]["bootstrap"]
    return (
        f"{text} In brackets: 95 % intervals, {bootstrap['resamples']} bootstrap resamples of patients "
        f"(seed {bootstrap['seed']})."
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield _row(columns)
        yield "|" + "---|" * len(columns)
        yield from map(_row, rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _with_interval(estimate: Line, digits: int) -> str:
    value = _number(estimate["value"], digits)
    if estimate["interval_95"] is None:
        return value
    low, high = estimate["interval_95"]
    return f"{value} ({low:.{digits}f} to {high:.{digits}f})"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
