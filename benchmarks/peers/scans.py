"""Phantoms to measure on: synthetic, seeded, the same for everybody."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files

SEED = 10_000
"""Held out: the embedded bundle was trained on seeds far below."""
COUNTS = (96, 160)
SIDE = 512
TALL = 1000
"""Slices of the scan that memory is measured on."""


def make_scans(folder: Path, say: Callable[[str], None], counts: tuple[int, ...] = COUNTS, side: int = SIDE) -> None:
    """Write `phantom_<slices>.nii.gz` and its label for each number of slices, and `tall_1000.nii.gz` made of them.

    The tall one is the first, again and again; its content does not matter, its size does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for count in counts:
        say(f"drawing a phantom of {side} x {side} x {count}")
        phantom = make_phantom(SEED, (count, side, side))
        write_phantom_files(phantom, scan_path(folder, count), folder / f"phantom_{count}_label.nii.gz")
    say(f"repeating it to {TALL} slices")
    write_tall(scan_path(folder, counts[0]), folder / f"tall_{TALL}.nii.gz", TALL)


def scan_path(folder: Path, count: int) -> Path:
    """Where the phantom of some number of slices lies."""
    return folder / f"phantom_{count}.nii.gz"


def write_tall(scan: Path, tall: Path, slices: int) -> None:
    """Repeat a scan along its third axis up to some number of slices."""
    image = nib.load(scan)
    voxels = np.asanyarray(image.dataobj)
    repeated = np.tile(voxels, (1, 1, -(-slices // voxels.shape[2])))[:, :, :slices]
    content = nib.Nifti1Image(repeated, image.affine).to_bytes()
    tall.write_bytes(gzip.compress(content, compresslevel=1, mtime=0))
