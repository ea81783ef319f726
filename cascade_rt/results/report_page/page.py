"""Build the page: one HTML file that loads nothing, sends nothing, and runs only the two scripts that it names by hash.

Everything that comes from outside, such as names and warnings, is escaped where it is turned into HTML, and the
template is filled in one pass, so that nothing inside a value is taken for a marker.
"""

import base64
import functools
import gzip
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.results.lesions import Lesion
from cascade_rt.results.preview import render_preview
from cascade_rt.results.report_page.facts import MOST_LESIONS, page_facts
from cascade_rt.results.report_page.volume_data import PageVolume, page_volume
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.results.slice_panel import COLORS, WINDOW_HU
from cascade_rt.scans.volume import refuse_scan

MOST_BYTES = 10_000_000
"""Size of a page that mail still takes. Scans lose resolution outside the mask until they fit."""
WINDOWS_HU: Mapping[str, tuple[float, float]] = {
    "Soft tissue": WINDOW_HU,
    "Pancreas": (-75.0, 175.0),
    "Liver": (-15.0, 135.0),
}
"""The windows offered, all inside the values that a page holds. The first is the one at the start."""
_VIEWS = {"three": "3 planes", "axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal"}
_RESERVE_BYTES = 100_000
"""Kept for text when the resolution is chosen."""
_FOLDER = Path(__file__).parent
_LIBRARY = Path(__file__).parents[2] / "assets" / "niivue" / "niivue.umd.js.gz"
_MARKER = re.compile(r"\{\{([a-z_]+)\}\}")


def save_page(segmentation: Segmentation, path: Path, *, overwrite: bool = False) -> None:
    """Write the report as an HTML page. Raises like `Segmentation.save`."""
    refuse_scan(path, segmentation.volume)
    write_bytes(path, render_page(segmentation), overwrite=overwrite)


def render_page(segmentation: Segmentation, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the report of a segmentation as an HTML page.

    The page has the numbers of the report, and a viewer of the scan with the mask. The same segmentation gives the same
    page: it has no times. It identifies the patient only as far as the file name of the scan does.

    Args:
        segmentation: The segmentation. The page names the hashes of scan and mask if they are files.
        most_bytes: The size to stay below, by lowering the resolution of the scan away from the mask.
    """
    picture, library = _picture(segmentation), _LIBRARY.read_bytes()
    room = most_bytes - _RESERVE_BYTES - len(_base64(picture)) - len(_base64(library))
    start = _start(segmentation)
    images = page_volume(segmentation.volume, segmentation.mask, room * 3 // 4, round(start[0]))
    resolution = _resolution(images, len(segmentation.mask))
    style, viewer = _asset("page.css"), _asset("viewer.js")
    values = {
        "policy": _policy(style, viewer, _library_hash()),
        "style": style,
        "viewer": viewer,
        "picture": _base64(picture),
        "picture_note": resolution if images is None else "The slices can be paged through in a browser with scripts.",
        "view_buttons": _buttons("view", {name: _VIEWS[name] for name in _views(segmentation)}),
        "window_buttons": _buttons("window", {name: name for name in WINDOWS_HU}),
        "data": "" if images is None else _data(_settings(segmentation, images, start), images, library),
        **page_facts(segmentation.to_json(), resolution),
    }
    return _filled(_asset("page.html"), values).encode(errors="backslashreplace")


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Replace the markers of a template in one pass."""
    return _MARKER.sub(lambda marker: values[marker[1]], template)


def _policy(style: str, viewer: str, library_hash: str) -> str:
    """Return the content policy: nothing is fetched, and no other script runs, whatever text the page may hold."""
    scripts = f"'{library_hash}' '{_hash(viewer.encode())}'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src '{_hash(style.encode())}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(content: bytes) -> str:
    """Return the hash of a script or style as policies write it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}"


@functools.cache
def _library_hash() -> str:
    return _hash(gzip.decompress(_LIBRARY.read_bytes()))


@functools.cache
def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _picture(segmentation: Segmentation) -> bytes:
    """Return the preview as JPEG, a third of the size of PNG, without blurring its colored outlines."""
    file = io.BytesIO()
    render_preview(segmentation).save(file, format="JPEG", quality=85, subsampling=0)
    return file.getvalue()


def _buttons(kind: str, names: Mapping[str, str]) -> str:
    return "".join(f'<button type="button" data-{kind}="{value}">{text}</button>' for value, text in names.items())


def _views(segmentation: Segmentation) -> list[str]:
    """Return the views that make sense: slices that are not neighbors have no other planes than their own."""
    flat = segmentation.volume.scattered or len(segmentation.mask) == 1
    return ["axial"] if flat else list(_VIEWS)


def _resolution(images: PageVolume | None, total: int) -> str:
    """Return a sentence that says at which resolution the page shows the scan."""
    if images is None:
        return "The slices are too large for a browser to show; there is only a picture."
    low, high = WINDOW_HU
    first, stop = images.slices.start, images.slices.stop
    is_whole = stop - first == total
    slices = "" if is_whole else f"Only slices {first + 1} to {stop} of {total} are shown. "
    values = f"{slices}Values are kept from {low:.0f} to {high:.0f} HU in steps of {(high - low) / 255:.1f} HU."
    outside, inside = images.parts[0].factor, images.parts[-1].factor
    if outside == 1:
        return f"Every voxel is shown at full resolution. {values}"
    near = "full resolution" if inside == 1 else f"1/{inside} of the resolution along rows and columns"
    far = f"1/{outside} of the resolution along rows and columns"
    box = f"{near} around the mask, {far} elsewhere" if len(images.parts) > 1 else far
    complete = "slices and the mask are complete" if is_whole else "the mask of these slices is complete"
    return f"To keep the page small, the scan is shown at {box}; {complete}. {values}"


def _data(settings: Mapping[str, Any], images: PageVolume, library: bytes) -> str:
    """Return the elements that hold settings, voxels and the library: none of them is run where it stands."""
    text = json.dumps(settings).replace("<", "\\u003c")
    contents = {"header": images.header, "mask": images.mask, "library": library}
    contents |= {f"part-{number}": part.content for number, part in enumerate(images.parts)}
    blocks = [f'<script type="application/json" id="settings">{text}</script>']
    blocks += [f'<script type="text/plain" id="{name}">{_base64(each)}</script>' for name, each in contents.items()]
    return "\n".join(blocks)


def _settings(segmentation: Segmentation, images: PageVolume, start: Sequence[float]) -> dict[str, Any]:
    """Return what `viewer.js` needs to know."""
    low, high = WINDOW_HU
    lesions = [_index(segmentation, lesion) for lesion in segmentation.measurements.lesions[:MOST_LESIONS]]
    first, stop = images.slices.start, images.slices.stop
    shape = stop - first, *segmentation.mask.shape[1:]
    return {
        "shape": shape,
        "first": first,
        "total": len(segmentation.mask),
        "affine": segmentation.volume.affine[:3].tolist(),
        "parts": [{"start": part.start, "size": part.size, "factor": part.factor} for part in images.parts],
        "low": low,
        "step": (high - low) / 255,
        "colors": [COLORS[ORGAN_LABEL], COLORS[TUMOR_LABEL]],
        "windows": [{"name": name, "range": window} for name, window in WINDOWS_HU.items()],
        "views": _views(segmentation),
        "lesions": [_fractions(index, first, shape) if first <= index[0] < stop else None for index in lesions],
        "start": _fractions(start, first, shape),
    }


def _start(segmentation: Segmentation) -> list[float]:
    """Return where the viewer starts, `[z, row, col]`: in the largest lesion, the largest organ slice or the middle."""
    mask, lesions = segmentation.mask, segmentation.measurements.lesions
    if lesions:
        return _index(segmentation, lesions[0])
    if not mask.any():
        return [float(side // 2) for side in mask.shape]
    index = int(np.argmax([np.count_nonzero(labels) for labels in mask]))
    row, col = (float(np.median(places)) for places in np.nonzero(mask[index]))
    return [float(index), row, col]


def _index(segmentation: Segmentation, lesion: Lesion) -> list[float]:
    """Return the voxel at the center of a lesion, `[z, row, col]`, or the nearest one of tumor if that is hollow."""
    affine = segmentation.volume.affine
    center = np.rint(np.linalg.solve(affine, [*lesion.center_mm, 1.0])[:3]).astype(int)
    if segmentation.mask[tuple(center)] == TUMOR_LABEL:
        return [float(value) for value in center]
    tumor = np.argwhere(segmentation.mask[lesion.first_slice : lesion.last_slice + 1] == TUMOR_LABEL)
    tumor[:, 0] += lesion.first_slice
    away_mm = np.linalg.norm((tumor - center) @ affine[:3, :3].T, axis=1)
    return [float(value) for value in tumor[np.argmin(away_mm)]]


def _fractions(index: Sequence[float], first: int, shape: tuple[int, ...]) -> list[float]:
    """Return an index `[z, row, col]` as fractions of what is shown, from 0 to 1 toward right, anterior, superior."""
    z, row, col = index
    superior, posterior, left = ((value + 0.5) / side for value, side in zip((z - first, row, col), shape, strict=True))
    return [1 - left, 1 - posterior, superior]
