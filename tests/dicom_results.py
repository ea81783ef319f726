"""Scans from DICOM series with their headers, and segmentations of them, for tests of DICOM results."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.uid import generate_uid

from cascade_rt.config import CascadeConfig
from cascade_rt.results.measurements import measure
from cascade_rt.results.segmentation import Segmentation, judge
from cascade_rt.scans.dicom import find_series, read_series
from cascade_rt.scans.dicom_headers import DicomHeaders
from cascade_rt.scans.volume import Volume
from tests.dicom_files import axial_slices, write_series

Mask = npt.NDArray[np.uint8]

BUNDLE = {"name": "small", "sha256": "ab" * 32, "intended_use": "For research. Not a medical device."}
SERIES = "1.2.826.0.1.3680043.8.498.1"
PATIENT = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Yamada^Tarou=山田^太郎",
    "PatientID": "MRN12345",
    "PatientBirthDate": "19551224",
    "PatientSex": "M",
    "StudyInstanceUID": f"{SERIES}.1",
    "FrameOfReferenceUID": f"{SERIES}.2",
    "StudyDate": "20240229",
    "StudyTime": "101500",
    "StudyID": "7",
    "AccessionNumber": "A17",
    "ReferringPhysicianName": "Ward7^Doctor",
    "StudyDescription": "CT Abdomen",
    "SeriesNumber": 3,
    "AcquisitionNumber": 1,
    "Manufacturer": "test",
    "SliceThickness": 3.0,
    "KVP": 120,
    "PositionReferenceIndicator": "",
    "PatientPosition": "HFS",
}
"""What the headers of a series say; the slices are thicker than they are apart."""
LEFT_OUT: dict[str, Any] = dict.fromkeys(("SOPClassUID", "SOPInstanceUID"))


def noise() -> npt.NDArray[np.float64]:
    """Slices `[z, row, col]` in HU, with air in front."""
    found = np.random.default_rng(1).integers(-50, 100, (8, 40, 48)) * 2.0
    found[:, :4] = -1000
    return found


def write_scan(folder: Path, hu: npt.NDArray[Any] | None = None, **changes: Any) -> Path:
    """Write a series `[z, row, col]`, by default of noise; file names say nothing of the order of its slices."""
    facts = tuple((PATIENT | changes).items())
    slices = axial_slices(noise() if hu is None else hu, series=SERIES, changes=facts)
    return write_series(folder, slices, shuffled=True)


def read_scan(folder: Path) -> Volume:
    """Read a series with its headers, as a DICOM reader does."""
    series = find_series(folder)
    datasets = tuple(pydicom.dcmread(entry.header.file.path, stop_before_pixels=True) for entry in series.slices)
    return replace(read_series(series, name="scan"), dicom=DicomHeaders(datasets))


def real_slices(sample_ct: Path, folder: Path) -> Path:
    """Copy the real slices, whose UIDs were emptied, with UIDs that belong together."""
    made = {name: generate_uid(entropy_srcs=[name]) for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    folder.mkdir()
    for path in sorted((sample_ct / "totalsegmentator" / "example_ct_dicom").iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID = pydicom.uid.CTImageStorage
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
        for name, uid in made.items():
            setattr(dataset, name, uid)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"{path.name}.dcm")
    return folder


def lopsided_mask(shape: Sequence[int]) -> Mask:
    """A mask `[z, row, col]` that no flip and no shift maps to itself, with empty slices at both ends."""
    slices, rows, cols = shape
    mask = np.zeros((slices, rows, cols), dtype=np.uint8)
    mask[1 : slices - 3, rows // 4 : rows // 2, cols // 5 : cols // 2] = 1
    mask[2, rows // 2 : rows // 2 + 5, cols // 5 : cols // 5 + 3] = 1
    mask[1:3, rows // 4 + 1 : rows // 4 + 6, cols // 5 + 2 : cols // 5 + 9] = 2
    mask[slices - 4, rows // 3 : rows // 3 + 2, cols // 3 : cols // 3 + 4] = 2
    return mask


def segmented(volume: Volume, mask: Mask, target: Any = "tumor", **changes: Any) -> Segmentation:
    """The segmentation of a scan with a mask, by a bundle that looks for the pancreas and, unless told, for tumors."""
    config = CascadeConfig(target=target)
    found = measure(mask, volume.affine, volume.voxel_volume_ml)
    facts: dict[str, Any] = {
        "volume": volume,
        "mask": mask,
        "status": judge(mask, found, config),
        "measurements": found,
        "boxes": {},
        "warnings": (),
        "timings": {},
        "provenance": {"bundle": BUNDLE},
        "tumor_sought": target == "tumor",
    }
    return Segmentation(**(facts | changes))


def program(name: str) -> str:
    """The path of a program, beside Python or on the search path; the test is skipped where it is not installed."""
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"needs the program {name}")
    return path


def read_by_dcmqi(seg: Path) -> Any:
    """The image that dcmqi makes of the frames of a SEG, cropped to the slices with any."""
    command = [program("segimage2itkimage"), "--inputDICOM", seg, "--outputDirectory", seg.parent]
    subprocess.run([*command, "--outputType", "nii", "--mergeSegments"], check=True, capture_output=True, timeout=120)
    return nib.load(seg.parent / "1.nii.gz")


def complaints(path: Path) -> set[str]:
    """The errors that `dciodvfy` finds in a file."""
    done = subprocess.run([program("dciodvfy"), "-new", path], capture_output=True, timeout=60, check=False)
    text = (done.stdout + done.stderr).decode(errors="replace")
    return {line for line in re.split(r"[\r\n]+", text) if line.startswith("Error")}
