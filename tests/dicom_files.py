"""DICOM series that several tests share, written by pydicom."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
    generate_uid,
)

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


BODY = {"slope": 1.0, "intercept": -1024.0}
"""A rescale that leaves all HU as they are."""
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big_endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg_ls": JPEGLSLossless,
    "jpeg_2000": JPEG2000Lossless,
    "htj2k": HTJ2KLossless,
    "jpeg_lossless": JPEGLosslessSV1,
}
"""The named transfer syntaxes that keep every value."""


def stored_as(path: Path, syntax: str) -> Path:
    """Write a file again, its pixels in another transfer syntax; skip the test where an encoder is missing."""
    dataset = pydicom.dcmread(path)
    if syntax in {RLELossless, JPEGLSLossless, JPEG2000Lossless}:
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax in {HTJ2KLossless, JPEGLosslessSV1}:
        codecs = pytest.importorskip("imagecodecs", reason="encodes HTJ2K and lossless JPEG")
        image = dataset.pixel_array
        encoded = codecs.htj2k_encode(image, reversible=True) if syntax == HTJ2KLossless else codecs.ljpeg_encode(image)
        dataset.PixelData = pydicom.encaps.encapsulate([encoded])
        dataset["PixelData"].is_undefined_length = True
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    # What was read in one encoding is written in another one only as a new dataset.
    fresh = FileDataset(None, dict(pydicom.Dataset(dataset).items()), file_meta=dataset.file_meta, preamble=b"\0" * 128)
    pydicom.dcmwrite(path, fresh, enforce_file_format=True)
    return path


def write_enhanced(path: Path, slices: Sequence[SliceFile], *, shared: bool = True, legacy: bool = False) -> Path:
    """Write slices as the frames of one enhanced CT, in the order given.

    Args:
        path: The file.
        slices: Of the same orientation, spacing and rescale.
        shared: Whether what all frames have in common is said once for all, or for each.
        legacy: Whether to write the form for what was converted from single images.
    """
    first = slices[0]
    dataset = pydicom.dcmread(first.write(path))
    dataset.SOPClassUID = LegacyConvertedEnhancedCTImageStorage if legacy else EnhancedCTImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.NumberOfFrames = len(slices)
    dataset.SharedFunctionalGroupsSequence = [_common(first) if shared else pydicom.Dataset()]
    frames = []
    for entry in slices:
        frame = pydicom.Dataset() if shared else _common(entry)
        frame.PlanePositionSequence = [_item(ImagePositionPatient=list(entry.position))]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    stored = [np.rint((entry.hu - entry.intercept) / entry.slope).astype("<u2") for entry in slices]
    dataset.PixelData = np.stack(stored).tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def _common(entry: SliceFile) -> pydicom.Dataset:
    return _item(
        PixelMeasuresSequence=[_item(PixelSpacing=list(entry.spacing))],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=list(entry.orientation))],
        PixelValueTransformationSequence=[
            _item(RescaleSlope=entry.slope, RescaleIntercept=entry.intercept, RescaleType="HU")
        ],
    )


def _item(**elements: Any) -> pydicom.Dataset:
    item = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def zipped(folder: Path, path: Path) -> Path:
    """Pack the files of a folder into a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path
