"""Results that a run writes on request, besides the mask and its report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cascade_rt.results.segmentation import Segmentation

ExtraResult = Literal["picture", "page"]
EXTRA_RESULTS: tuple[ExtraResult, ...] = get_args(ExtraResult)


@dataclass(frozen=True, slots=True)
class ExtraFormat:
    """How one kind of extra result is named and written."""

    suffix: str
    """What follows the name of the mask without its own suffix: `.png` beside `scan_seg.nii.gz` is `scan_seg.png`."""
    write: Callable[[Segmentation, Path, bool], None]
    """Writes it to a path; the last argument says whether an existing file is replaced."""


def _write_picture(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    from cascade_rt.results.preview import save_preview

    save_preview(segmentation, path, overwrite=overwrite)


def _write_page(segmentation: Segmentation, path: Path, overwrite: bool) -> None:
    from cascade_rt.results.report_page.page import save_page

    save_page(segmentation, path, overwrite=overwrite)


EXTRA_FORMATS: Mapping[ExtraResult, ExtraFormat] = {
    "picture": ExtraFormat(".png", _write_picture),
    "page": ExtraFormat(".html", _write_page),
}
"""The format of each extra result. Their modules are imported when they are written."""
