"""A small scan with two lesions, and the page of its report."""

import numpy as np
import numpy.typing as npt

from cascade_rt.config import CascadeConfig
from cascade_rt.errors import InputWarning
from cascade_rt.results.measurements import measure
from cascade_rt.results.segmentation import Segmentation, judge
from cascade_rt.scans.volume import Volume

SHAPE = (24, 80, 96)
SPACING_MM = (3.0, 1.5, 1.5)
LARGE, SMALL = (slice(14, 20), slice(20, 30), slice(14, 28)), (slice(4, 7), slice(24, 30), slice(60, 68))
"""Where the lesions are, `[z, row, col]`: one on the patient's right, a smaller one on the left, both in front."""
BRIGHT = (slice(0, 24), slice(60, 72), slice(66, 84))
"""A white block on the patient's left, at the back."""
NASTY = "</title></script><script>document.title='run'</script><b>{{policy}}&amp;"
"""A name that would run if a page did not escape it."""


def bright_scan() -> npt.NDArray[np.int16]:
    """Voxels `[z, row, col]` of tissue with structure, with a block of 240 HU."""
    z, row, col = np.indices(SHAPE)
    hu = (40 + 50 * np.sin(row / 9) * np.cos(col / 11) + z).astype(np.int16)
    hu[BRIGHT] = 240
    return hu


def mask_with_lesions() -> npt.NDArray[np.uint8]:
    """Pancreas with two lesions."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[3:21, 18:34, 10:72] = 1
    mask[LARGE], mask[SMALL] = 2, 2
    return mask


def segmented(
    hu: npt.NDArray[np.int16] | None = None,
    mask: npt.NDArray[np.uint8] | None = None,
    *,
    name: str = "case_7",
    scattered: bool = False,
    warnings: tuple[InputWarning, ...] = (),
) -> Segmentation:
    """A segmentation of a scan whose axes point to left, posterior and superior."""
    voxels, labels = bright_scan() if hu is None else hu, mask_with_lesions() if mask is None else mask
    affine = np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1.0])
    affine[:3, 3] = 70, 50, -30
    volume = Volume.from_array(voxels.T, affine, name=name, scattered=scattered)
    found = measure(labels, volume.affine, volume.voxel_volume_ml)
    status = judge(labels, found, CascadeConfig())
    return Segmentation(volume, labels, status, found, {}, warnings, {"stage1": 1.0}, _provenance(name))


def _provenance(intended_use: str) -> dict[str, object]:
    engine = {"backend": "onnxruntime", "precision": "fp32", "device": "cpu", "version": "1.27", "settings": {}}
    return {
        "versions": {"cascade-rt": "1", "python": "3"},
        "bundle": {"name": "mine", "sha256": "a" * 64, "intended_use": intended_use},
        "graphs": {"stage1": "b" * 64, "stage2": "c" * 64},
        "engine": engine,
        "engines_passed_over": [],
        "batch_plan": {"slices": 1, "crops": 1},
        "rung": 0,
    }
