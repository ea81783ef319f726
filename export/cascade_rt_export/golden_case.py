"""Make the golden case of a bundle on export.

It is run whenever the bundle is opened (see `cascade_rt.bundles.golden`).
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cascade_rt.bundles.files import GOLDEN_NAME
from cascade_rt.bundles.golden import SIDE, Golden, golden_bytes
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.labels import TUMOR_LABEL
from cascade_rt.common.tensors import Stage
from cascade_rt.data import demo_patient
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines.base import Array
from cascade_rt.engines.pytorch import PyTorchEngine
from cascade_rt.models.cascade_model import CascadeModel

PHANTOM_SEED = 20_003
"""Far from any seed used for training. The embedded bundle finds both pancreas and tumor in the patch."""
PHANTOM_SHAPE = (12, 512, 512)


def make_golden(model: CascadeModel, *, synthetic: bool = True) -> dict[Stage, Golden]:
    """Run both stages of a model, in PyTorch and float32, on a patch of a slice that shows their targets.

    Stage 2 receives the salient image that stage 1 returns.

    Args:
        model: The trained cascade.
        synthetic: Whether the model was trained on phantoms. If so, the patch is from a phantom, with pancreas and
            tumor. Otherwise it is from a patient, with pancreas.

    Returns:
        The inputs and outputs of each stage.
    """
    image = {"hu": _phantom_piece() if synthetic else _patient_piece()}
    organ = PyTorchEngine(model, "stage1").run(image)
    salient = {"salient": organ["salient"]}
    return {
        "stage1": Golden(image, organ),
        "stage2": Golden(salient, PyTorchEngine(model, "stage2").run(salient)),
    }


def write_golden(model: CascadeModel, folder: Path, *, synthetic: bool = True) -> None:
    """Write the golden case of a model (see `make_golden`) into the folder of its bundle."""
    write_bytes(folder / GOLDEN_NAME, golden_bytes(make_golden(model, synthetic=synthetic)), overwrite=True)


def _phantom_piece() -> Array:
    """Return a patch `[1, 1, SIDE, SIDE]` in HU around the tumor, in the slice with the most tumor."""
    phantom = make_phantom(PHANTOM_SEED, PHANTOM_SHAPE, tumor=True)
    return _piece_around(phantom.hu, phantom.label == TUMOR_LABEL)


def _patient_piece() -> Array:
    """Return a patch `[1, 1, SIDE, SIDE]` in HU around the pancreas, in the slice with the most pancreas."""
    from cascade_rt.scans.opening import read_volume
    from cascade_rt.scans.volume import read_mask

    scan = read_volume(demo_patient.SCAN, demo_patient.READING)
    return _piece_around(scan.voxels, read_mask(demo_patient.LABEL, like=scan) > 0)


def _piece_around(hu: npt.NDArray[np.int16], target: npt.NDArray[np.bool_]) -> Array:
    """Cut a patch around a target from the slice with the most of it.

    Args:
        hu: Scan `[z, row, col]` in HU.
        target: Mask `[z, row, col]` of the target.

    Returns:
        The patch `[1, 1, SIDE, SIDE]` in HU.
    """
    index = int(target.sum(axis=(1, 2)).argmax())
    starts = [round(float(np.mean(places))) - SIDE // 2 for places in np.nonzero(target[index])]
    row, col = (int(np.clip(start, 0, side - SIDE)) for start, side in zip(starts, hu.shape[1:], strict=True))
    return hu[index, row : row + SIDE, col : col + SIDE].astype(np.float32)[None, None]
