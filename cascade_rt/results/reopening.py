"""Open a result again from its files: the report, the mask and the scan, if they are still those of the run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascade_rt.common.hashing import FileRecord, record_file
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.common.strict_json import parse_strict_json
from cascade_rt.errors import InputError, InputWarning
from cascade_rt.models.crop import Box
from cascade_rt.results.islands import IslandRecord
from cascade_rt.results.lesions import Lesion
from cascade_rt.results.measurements import Measurements
from cascade_rt.results.segmentation import REPORT_VERSION, STATUS_SENTENCES, Segmentation
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.pixel_grid import PixelGrid
from cascade_rt.scans.search import SearchRecord
from cascade_rt.scans.volume import Volume, read_mask

_MOST_BYTES = 64 << 20
"""A report of a thousand slices and ten thousand lesions has 5 MB."""


def reopen(report: Path, mask: Path, scan: Path, options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> Segmentation:
    """Open the result of an earlier run.

    Args:
        report: The report, JSON.
        mask: The mask that the report describes.
        scan: The scan that was segmented.
        options: How the scan was read, as in the run; whether its slices are adjacent is taken from the report.

    Returns:
        The segmentation, whose `to_json` is the report. It has no probabilities.

    Raises:
        InputError: A file cannot be read or is not what it should be (`E_REPORT` for the report), or scan or mask are
            not the files that the report names by their hashes (`E_OTHER_FILE`).
    """
    content = read_report(report)
    recorded = _recorded(content, report)
    _check_file(mask, _record_of(mask), recorded["output"], "mask", report)
    volume = read_volume(scan, replace(options, scattered=bool(recorded["scattered"])))
    # Only its reader knows which bytes are the scan: those of one file, of two, or of all slices of a series.
    _check_file(scan, volume.file, recorded["input"], "scan", report)
    labels = read_mask(mask, volume)
    try:
        found = _segmentation(content, volume, labels)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_report(report) from error
    if json.loads(json.dumps(found.to_json())) != content:
        raise InputError(
            f"{report}: does not describe the scan as it was read now; use the options of that run, like `assume_hu`",
            code="E_REPORT",
        )
    return found


def read_report(path: Path) -> Mapping[str, Any]:
    """Return the content of a report. Raises InputError if it cannot be read or is none (`E_REPORT`)."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _no_report(path)
        content = parse_strict_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except ValueError as error:
        raise _no_report(path) from error
    if not isinstance(content, dict) or "report_version" not in content:
        raise _no_report(path)
    if content["report_version"] != REPORT_VERSION:
        sentence = f"is a report of another version of cascade-rt ({REPORT_VERSION} is understood)"
        raise InputError(f"{path}: {sentence}; segment the scan again", code="E_REPORT")
    if content.get("status") not in STATUS_SENTENCES:
        raise _no_report(path)
    return content


def _no_report(path: Path) -> InputError:
    return InputError(f"{path}: is not a report of cascade-rt; choose the .json file beside a mask", code="E_REPORT")


def _recorded(content: Mapping[str, Any], report: Path) -> dict[str, Any]:
    """Return the records of scan and mask, and whether the slices are independent."""
    try:
        records = {name: content[name] and FileRecord(**content[name]) for name in ("input", "output")}
        return {**records, "scattered": content["slices"]["scattered"]}
    except (KeyError, TypeError) as error:
        raise _no_report(report) from error


def _record_of(path: Path) -> FileRecord:
    """Return hash and size of a file. Raises InputError if it cannot be read."""
    try:
        return record_file(path)
    except NotAPlainFileError as error:
        raise InputError(f"{path}: {error}; choose a file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def _check_file(path: Path, found: FileRecord | None, recorded: FileRecord | None, what: str, report: Path) -> None:
    """Raise InputError if a file is not the one that the report names."""
    if recorded is None:
        raise InputError(f"{report}: names no {what} file, so that it cannot be told which one it is", code="E_REPORT")
    if found != recorded:
        sentence = f"is not the {what} that {report.name} describes (its hash differs)"
        raise InputError(f"{path}: {sentence}; choose the {what} of that run", code="E_OTHER_FILE")


def _segmentation(content: Mapping[str, Any], volume: Volume, mask: Any) -> Segmentation:
    """Build the segmentation that a report describes."""
    grid, search = content["geometry"]["working_grid"], content["search"]
    body_box = search["body_box"]
    volumes = content["volumes_ml"]
    return Segmentation(
        # The name is that of the run, even if the scan was renamed.
        volume=replace(volume, name=content["case"]),
        mask=mask,
        status=content["status"],
        measurements=_measurements(content),
        boxes={
            box["slice"]: Box(**{name: side for name, side in box.items() if name != "slice"})
            for box in content["boxes"]
        },
        warnings=tuple(InputWarning(**warning) for warning in content["warnings"]),
        timings=content["timings_s"],
        provenance=content["provenance"],
        slices_without_organ=content["slices"]["without_organ_in_stage1"],
        input_file=FileRecord(**content["input"]),
        mask_file=FileRecord(**content["output"]),
        search=SearchRecord(**{**search, "body_box": body_box and Box(**body_box)}),
        tumor_sought=volumes["tumor"] is not None,
        islands=IslandRecord(**content["islands"]),
        working_grid=grid and PixelGrid(tuple(grid["shape"]), tuple(grid["pixel_mm"])),
        wall_s=content["wall_s"],
    )


def _measurements(content: Mapping[str, Any]) -> Measurements:
    """Return the measurements of a report; what was not looked for is 0 in them."""
    volumes, slices = content["volumes_ml"], content["slices"]
    lesions = (Lesion(**{**lesion, "center_mm": tuple(lesion["center_mm"])}) for lesion in content["lesions"])
    return Measurements(
        organ_ml=volumes["organ"] or 0.0,
        pancreas_ml=volumes["pancreas"] or 0.0,
        tumor_ml=volumes["tumor"] or 0.0,
        organ_slices=slices["with_organ"] or 0,
        tumor_slices=slices["with_tumor"] or 0,
        lesions=tuple(lesions),
    )
