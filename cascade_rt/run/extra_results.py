"""Results that a run writes on request, besides the mask and its report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cascade_rt.common.packages import import_package
from cascade_rt.errors import InputWarning, UsageError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.scans.volume import Volume

ExtraResult = Literal["picture", "probabilities", "dicom-seg", "dicom-seg-labelmap", "dicom-sr", "rtstruct", "page"]
EXTRA_RESULTS: tuple[ExtraResult, ...] = get_args(ExtraResult)


def _any_scan(_: Volume) -> None:
    """Accept every scan."""


def _no_doubts(_: Volume) -> tuple[InputWarning, ...]:
    """Doubt nothing."""
    return ()


@dataclass(frozen=True, slots=True)
class ExtraFormat:
    """How one kind of extra result is named and written."""

    suffix: str
    """What follows the name of the mask without its own suffix: `.png` beside `scan_seg.nii.gz` is `scan_seg.png`."""
    write: Callable[[Segmentation, Path, bool], None]
    """Writes it to a path; the last argument says whether an existing file is replaced."""
    check: Callable[[Volume], None] = _any_scan
    """Refuses a scan that the result cannot be made of, as soon as its header has been read."""
    doubts: Callable[[Volume], tuple[InputWarning, ...]] = _no_doubts
    """Returns what is doubtful about the result of such a scan, for the report."""
    goes_with: ExtraResult | None = None
    """The result that it refers to, without which it makes no sense."""


def _write_picture(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    from cascade_rt.results.preview import save_preview

    save_preview(segmentation, path, overwrite=overwrite)


def _write_probabilities(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    segmentation.save_probabilities(path, overwrite=overwrite)


def _write_dicom_seg(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    from cascade_rt.results.dicom import write_segmentation

    write_segmentation(segmentation, path, overwrite=overwrite)


def _write_dicom_labelmap(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    from cascade_rt.results.dicom import write_segmentation

    write_segmentation(segmentation, path, kind="labelmap", overwrite=overwrite)


def _write_dicom_sr(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    from cascade_rt.results.dicom import write_report

    write_report(segmentation, path, overwrite=overwrite)


def _write_rtstruct(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    from cascade_rt.results.dicom import write_rtstruct

    write_rtstruct(segmentation, path, overwrite=overwrite)


def _check_dicom(volume: Volume) -> None:
    from cascade_rt.results.dicom.source import check_source

    check_source(volume)


def _check_highdicom(volume: Volume) -> None:
    from cascade_rt.results.dicom.source import NEEDED_BY

    _check_dicom(volume)
    import_package("highdicom", needed_by=NEEDED_BY, extra="dicom")


def _doubts_of_seg(volume: Volume) -> tuple[InputWarning, ...]:
    from cascade_rt.results.dicom.source import doubts_of_tilt

    return doubts_of_tilt(volume)


def _write_page(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    from cascade_rt.results.report_page.page import save_page

    save_page(segmentation, path, overwrite=overwrite)


EXTRA_FORMATS: Mapping[ExtraResult, ExtraFormat] = {
    "picture": ExtraFormat(".png", _write_picture),
    "probabilities": ExtraFormat("_prob.nii.gz", _write_probabilities),
    "dicom-seg": ExtraFormat(".dcm", _write_dicom_seg, _check_highdicom, _doubts_of_seg),
    "dicom-seg-labelmap": ExtraFormat(".dcm", _write_dicom_labelmap, _check_highdicom, _doubts_of_seg),
    "dicom-sr": ExtraFormat("_sr.dcm", _write_dicom_sr, _check_highdicom, goes_with="dicom-seg"),
    "rtstruct": ExtraFormat("_rtstruct.dcm", _write_rtstruct, _check_dicom),
    "page": ExtraFormat(".html", _write_page),
}
"""The format of each extra result. Their modules are imported when they are written."""


def check_extras(extras: Sequence[ExtraResult]) -> None:
    """Check that extra results can be written together.

    Raises:
        UsageError: One refers to another that is missing, or two would have the same name.
    """
    names: dict[str, ExtraResult] = {}
    for extra in extras:
        needed = EXTRA_FORMATS[extra].goes_with
        if needed is not None and needed not in extras:
            raise UsageError(f"`{extra}`: refers to another result that was not asked for; add `{needed}`")
        other = names.setdefault(EXTRA_FORMATS[extra].suffix, extra)
        if other != extra:
            raise UsageError(f"`{extra}`: would have the same name as `{other}`; choose one of them")
