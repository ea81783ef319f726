"""Makes the scan that `cascade-rt demo` shows: slices of six patients that the embedded bundle was not trained on.

    python -m benchmarks.patients.demo_patient nih_pancreas_slices.zip

The archive is that of `nih_slices.py`: its grey values are HU clipped to [0, 255]. One slice each is taken of six
patients, by its place among the slices of the patient and whatever a bundle finds in it, so that they go up the gland
from patient to patient. The values are stored as they are: what was clipped is not made up.
"""

import argparse
import gzip
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import nibabel as nib
import numpy as np
import numpy.typing as npt

from benchmarks.patients.nih_slices import PIXEL_MM, cases_of, read_slices
from cascade_rt.common.atomic import write_bytes
from cascade_rt.data.demo_patient import ATTRIBUTION, LABEL, SCAN

PATIENTS = (52, 54, 56, 58, 60, 62)
"""Of the twelve that were held out of training, every other one."""
SLICE_MM = 1.0
"""Nominal, as is the size of a pixel: the archive tells neither."""
DESCRIPTION = "scattered slices of several patients, spacing nominal, CC BY 3.0"

TEXT = """# Slices of patients, for demonstration

`scan.nii.gz` and `label.nii.gz` hold {count} axial CT slices of {count} patients with a healthy pancreas, and the
outline of the pancreas, drawn by hand and verified by a radiologist, from

> Roth, H., Farag, A., Turkbey, E. B., Lu, L., Liu, J., Summers, R. M. (2016). Data From Pancreas-CT (Version 2)
> [Data set]. The Cancer Imaging Archive. <https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU>

> Clark, K., et al. (2013). The Cancer Imaging Archive (TCIA): Maintaining and Operating a Public Information
> Repository. Journal of Digital Imaging 26(6), 1045-1057. <https://doi.org/10.1007/s10278-013-9622-7>

They are under [Creative Commons Attribution 3.0](https://creativecommons.org/licenses/by/3.0/); the program is not.
Neither the authors nor TCIA endorse this package or what it makes of their data.

What was changed:

- The slices were found as JPEG files, clipped to 0 to 255 HU, in a copy of the data set (atlan-antillia,
  Tensorflow-Image-Segmentation-Pancreas and -Augmented-Pancreas). Air and fat are 0, most bone and strong contrast
  255, and what lies between is as near as JPEG keeps it. Nothing was put in the place of what was lost.
- They are no scan: each is of another patient. From the lowest in the body to the highest they are {names},
  patient and slice as the copy numbers them.
- Their spacing, {pixel} x {pixel} x {slice} mm, is nominal: the true one was not there. Volumes in ml mean nothing.

They were made by `benchmarks/patients/demo_patient.py`. Their values look windowed; `cascade-rt infer` refuses them
unless `--assume-hu` says that they are Hounsfield units.
"""


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    with ZipFile(parser.parse_args().archive) as archive:
        slices = choose_slices(archive.namelist())
        grey, label = read_slices(archive, slices)
    save(grey.astype(np.int16), SCAN)
    save(label, LABEL)
    names = " ".join(Path(entry).stem for entry in slices)
    text = TEXT.format(count=len(slices), names=names, pixel=PIXEL_MM, slice=SLICE_MM)
    write_bytes(ATTRIBUTION, text.encode(), overwrite=True)
    print(f"{SCAN.parent}: {sum(path.stat().st_size for path in SCAN.parent.iterdir()) / 1e6:.2f} MB")


def choose_slices(names: Sequence[str]) -> list[str]:
    """Choose an entry of the archive for each patient, the lowest in the body first.

    The slices are numbered from above. Of n patients the k-th, from 1, gives that at k / (n + 1) of his whole ones.
    """
    chosen, cases = [], cases_of(names)
    for number, patient in enumerate(PATIENTS, start=1):
        own = cases[f"PANCREAS_{patient:04}"]
        chosen.append(own[round(number / (len(PATIENTS) + 1) * (len(own) - 1))])
    return chosen[::-1]


def save(voxels: npt.NDArray[np.generic], path: Path) -> None:
    """Write voxels `[z, row, col]` as `.nii.gz`, oriented LPS."""
    affine = np.diag([-PIXEL_MM, -PIXEL_MM, SLICE_MM, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(voxels.shape[::-1]) - 1) / 2)
    image = nib.Nifti1Image(voxels.T, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = DESCRIPTION
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, gzip.compress(image.to_bytes(), mtime=0), overwrite=True)


if __name__ == "__main__":
    main()
