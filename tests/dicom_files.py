"""DICOM series that several tests share; written by pydicom, uncompressed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

Array = npt.NDArray[Any]

SLOPE, INTERCEPT = 2.0, -1024.0


@dataclass(frozen=True)
class SliceFile:
    """One slice as it is written."""

    hu: Array
    position: tuple[float, float, float]
    number: int
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    spacing: tuple[float, float] = (0.8, 0.7)
    slope: float = SLOPE
    intercept: float = INTERCEPT
    modality: str = "CT"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    series: str = "1.2.3"
    syntax: str = ExplicitVRLittleEndian
    changes: tuple[tuple[str, Any], ...] = ()
    """Elements set last; None takes the element out."""

    def write(self, path: Path) -> Path:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[self.series, str(self.number), self.modality])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.SeriesInstanceUID = self.series
        dataset.Modality = self.modality
        dataset.ImageType = list(self.image_type)
        dataset.InstanceNumber = self.number
        dataset.ImagePositionPatient = list(self.position)
        dataset.ImageOrientationPatient = list(self.orientation)
        dataset.PixelSpacing = list(self.spacing)
        dataset.Rows, dataset.Columns = self.hu.shape
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 0
        dataset.RescaleSlope, dataset.RescaleIntercept = self.slope, self.intercept
        stored = np.rint((self.hu - self.intercept) / self.slope)
        dataset.PixelData = stored.astype("<u2").tobytes()
        for keyword, value in self.changes:
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        if self.syntax != ExplicitVRLittleEndian:
            # pydicom does not write pixels as stored otherwise than they are; the header is all that matters here.
            dataset.file_meta.TransferSyntaxUID = self.syntax
            dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 8])
            dataset["PixelData"].is_undefined_length = True
            pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        return path


def axial_slices(
    hu: Array, *, spacing: tuple[float, float, float] = (2.5, 0.8, 0.7), **options: Any
) -> list[SliceFile]:
    """Slices of `[z, row, col]` in the canonical frame, the lowest first; even HU survive the rescale."""
    z_mm, row_mm, col_mm = spacing
    return [
        SliceFile(image, (-30.0, -20.0, -400.0 + index * z_mm), index + 1, spacing=(row_mm, col_mm), **options)
        for index, image in enumerate(hu)
    ]


def write_series(folder: Path, slices: Sequence[SliceFile], *, shuffled: bool = False) -> Path:
    """Write slices; shuffled, the names and the folders say nothing of their order."""
    order = np.random.default_rng(3).permutation(len(slices)) if shuffled else range(len(slices))
    for place, index in enumerate(order):
        nested = folder / f"part{place % 2}" if shuffled else folder
        slices[index].write(nested / f"1-{place + 1:03d}.dcm")
    return folder


def changed(slices: Sequence[SliceFile], index: int, **changes: Any) -> list[SliceFile]:
    """The same slices, one of them with other values."""
    return [replace(entry, **changes) if place == index else entry for place, entry in enumerate(slices)]
