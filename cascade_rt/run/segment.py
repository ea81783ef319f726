"""Segment one scan, whatever form it has."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypedDict, Unpack

from cascade_rt.common.arguments import check_argument
from cascade_rt.engines import BackendChoice, EngineRequest, PrecisionChoice
from cascade_rt.errors import UsageError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade, KeepProbabilities, open_cascade
from cascade_rt.scans.inputs import Scan, scan_source
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions, check_search


class Opening(TypedDict, total=False):
    """The arguments of `open_cascade`."""

    bundle: str | os.PathLike[str] | None
    backend: BackendChoice
    precision: PrecisionChoice
    device: int
    engines: EngineRequest
    public_key: str | os.PathLike[str] | None
    sha256: str | None
    falls_back: bool


def segment(
    scan: Scan,
    cascade: Cascade | None = None,
    *,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
    search: SearchOptions = WHOLE_SCAN,
    keep_probabilities: KeepProbabilities = False,
    on_slices: Callable[[int], None] = lambda _: None,
    **opening: Unpack[Opening],
) -> Segmentation:
    """Segment a scan.

    Opening a bundle takes seconds. For several scans, open it once and pass the cascade, or call `Cascade.segment`.

    Args:
        scan: A path; `(array, affine)` with an array `[i, j, k]` in HU and its 4x4 affine to world mm (RAS+); an image
            of nibabel or SimpleITK in HU; or a `Volume`.
        cascade: An open cascade, which stays open. None opens one for this scan.
        reading: How a file is read. Of these options, only `scattered` applies to images and arrays.
        search: Where stage 1 looks; anything but the whole scan may change the mask.
        keep_probabilities: Whether to return the probabilities too (see `Cascade.run`).
        on_slices: Called with the number of slices just finished.
        **opening: Arguments of `open_cascade`, such as `bundle="phantom"`, if no cascade is given.

    Raises:
        UsageError: An argument has the wrong type, or both a cascade and arguments to open one are given.
        InputError: The scan cannot be used.
        CascadeError: As from `open_cascade` and `Cascade.run`.
    """
    if cascade is not None:
        check_argument("cascade", cascade, Cascade, "an open cascade, as from open_cascade(), or None")
        if opening:
            given = ", ".join(opening)
            raise UsageError(f"cascade: is open already, so {given} would have no effect; leave one or the other out")
    check_argument("reading", reading, ScanOptions, "ScanOptions, such as ScanOptions(assume_hu=True)")
    # The scan comes first: it is checked at once, and a file is read while the bundle is opened.
    check_search(search, scattered=reading.scattered)
    with (
        scan_source(scan, reading) as source,
        open_cascade(**opening) if cascade is None else nullcontext(cascade) as opened,
    ):
        return opened.run(source, keep_probabilities=keep_probabilities, on_slices=on_slices, search=search)
