"""Turn whatever a caller has of a scan into a source that can be segmented: a file, an array, an image in memory."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header

from cascade_rt.common.arguments import check_argument
from cascade_rt.errors import UsageError
from cascade_rt.scans.names import split_suffix
from cascade_rt.scans.nifti.gate import input_gate
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.nifti.placement import GEOMETRY_FIELDS, what_places
from cascade_rt.scans.opening import open_scan
from cascade_rt.scans.simpleitk import from_simpleitk, is_simpleitk
from cascade_rt.scans.source import ScanInBackground, ScanSource
from cascade_rt.scans.volume import Volume

ACCEPTED = (
    "a path, (array, affine) with an array [i, j, k] in HU and its 4x4 affine to world mm (RAS+), "
    "an image of nibabel or SimpleITK, or a Volume"
)
"""What a scan may be given as."""
Scan = Any
"""A scan in any of these forms."""


@contextmanager
def scan_source(scan: Scan, options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> Iterator[ScanSource]:
    """Provide a scan that can be segmented. A file is read in another thread, and closed at the end of the block.

    Args:
        scan: See `ACCEPTED`; or a `ScanSource`, which is returned as it is. Images and arrays are in HU: only their
            geometry is judged.
        options: How a file is read. Of these, only `scattered` applies to images and arrays.

    Raises:
        UsageError: The scan has none of these forms, or the options do not apply to it.
        InputError: An array or an image cannot be a CT scan. Errors about a file are raised when it is used.
    """
    check_argument("reading", options, ScanOptions, "ScanOptions, such as ScanOptions(assume_hu=True)")
    if not isinstance(scan, str | os.PathLike):
        yield _in_memory(scan, options)
        return
    with ThreadPoolExecutor(1, "read") as reader:
        source = ScanInBackground(partial(open_scan, scan, options), reader)
        try:
            yield source
        finally:
            source.close()


def _in_memory(scan: Scan, options: ScanOptions) -> ScanSource:
    is_source = all(hasattr(scan, name) for name in ("voxels", "wait_for", "finish"))
    applicable = DEFAULT_SCAN_OPTIONS if is_source else ScanOptions(scattered=options.scattered)
    if options != applicable:
        advice = "set `scattered` in Volume.from_array" if is_source else "convert the array itself"
        raise UsageError(f"reading: says how a file is read, but the scan is a {type(scan).__name__}; {advice}")
    if is_source:
        source: ScanSource = scan
        return source
    if isinstance(scan, tuple) and len(scan) == 2:
        return Volume.from_array(scan[0], scan[1], scattered=options.scattered)
    if is_simpleitk(scan):
        return _from_simpleitk(scan, options)
    if hasattr(scan, "dataobj") and hasattr(scan, "affine"):
        return _from_nibabel(scan, options)
    needs_affine = "; an array alone does not say where it lies" if isinstance(scan, np.ndarray) else ""
    raise UsageError(f"scan: got {type(scan).__name__}{needs_affine}; pass {ACCEPTED}")


def _from_simpleitk(image: Any, options: ScanOptions) -> Volume:
    with input_gate("image"):
        array, affine = from_simpleitk(image)
    return Volume.from_array(array, affine, name="image", scattered=options.scattered)


def _from_nibabel(image: Any, options: ScanOptions) -> Volume:
    """Convert an image, and keep the fields of its NIfTI header that place it, and its file, if it has them."""
    file = image.get_filename() if hasattr(image, "get_filename") else None
    name = split_suffix(os.path.basename(file))[0] if file else "image"
    volume = Volume.from_array(image.dataobj, image.affine, name=name, scattered=options.scattered)
    if file:
        volume = replace(volume, path=Path(os.path.abspath(file)))
    header = getattr(image, "header", None)
    if not isinstance(header, Nifti1Header) or not np.allclose(header.get_best_affine(), volume.grid.affine):
        return volume
    placing = what_places(header)
    geometry = {field: np.array(placing[field]) for field in GEOMETRY_FIELDS}
    return replace(volume, grid=replace(volume.grid, geometry=geometry))
