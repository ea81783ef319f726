"""Write a mask as a DICOM RT structure set: contours in the slices of the scan."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.version import __version__
from cascade_rt.results.dicom.contours import outlines
from cascade_rt.results.dicom.identity import (
    MANUFACTURER,
    SERIES_NUMBERS,
    Uids,
    algorithm_name,
    algorithm_parameters,
    plain,
    save_object,
)
from cascade_rt.results.dicom.segments import Segment, segments_of
from cascade_rt.results.dicom.source import Source
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.results.slice_panel import COLORS
from cascade_rt.scans.volume import Volume, mask_on_source_grid

_RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_REFERENCE = "1.2.840.10008.3.1.2.3.1"
"""The retired class that the standard still asks for where a structure set refers to a study."""


def write_rtstruct(segmentation: Segmentation, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write the outlines of the segments, for systems that do not read DICOM SEG, which is the exact result.

    Contours lie halfway between the centers of pixels, and holes are contours of their own: a point belongs to a
    segment if it is inside an odd number of its contours in the slice. No segment is declared a target or an organ at
    risk.

    Args:
        segmentation: The segmentation of a scan that was read from DICOM.
        path: Where to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The scan was not read from DICOM, or DICOM results cannot refer to it (see `check_source`).
        BackendUnavailableError: pydicom is not installed.
        OutputExistsError: The file exists and `overwrite` is False.
        OutputError: The file cannot be written.
    """
    source, uids = Source.of(segmentation.volume), Uids.of(segmentation)
    result = _empty_object(source, uids)
    segments = segments_of(segmentation, uids)
    result.StructureSetLabel = "cascade-rt"
    result.StructureSetDescription = plain(segmentation.provenance["bundle"]["intended_use"], 1024)
    result.StructureSetDate, result.StructureSetTime = source.content_date
    result.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
    result.StructureSetROISequence = [_structure(segment, segmentation, source) for segment in segments]
    result.ROIContourSequence = [_contours(segment, segmentation, source) for segment in segments]
    result.RTROIObservationsSequence = [_observation(segment) for segment in segments]
    save_object(result, source, segmentation.volume, path, overwrite=overwrite)


def _empty_object(source: Source, uids: Uids) -> Any:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _RT_STRUCTURE_SET
    meta.MediaStorageSOPInstanceUID = uids.uid("rtstruct", "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result: Any = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    result.SOPClassUID, result.SOPInstanceUID = _RT_STRUCTURE_SET, meta.MediaStorageSOPInstanceUID
    result.StudyInstanceUID, result.SeriesInstanceUID = source.first.StudyInstanceUID, uids.uid("rtstruct", "series")
    result.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    result.PositionReferenceIndicator = source.first.get("PositionReferenceIndicator", "")
    result.Modality, result.SeriesNumber, result.InstanceNumber = "RTSTRUCT", SERIES_NUMBERS["rtstruct"], 1
    result.SeriesDescription, result.OperatorsName = "cascade-rt contours", ""
    result.Manufacturer, result.ManufacturerModelName = MANUFACTURER, "cascade-rt"
    result.SoftwareVersions = __version__
    return result


def _frame_of_reference(source: Source) -> Any:
    study, series, found = _dataset(), _dataset(), _dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    series.ContourImageSequence = [_image(header) for header in source.headers]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_REFERENCE, source.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    found.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    found.RTReferencedStudySequence = [study]
    return found


def _image(header: Any, frame: int | None = None) -> Any:
    """Return a reference to an image, or to one of its frames."""
    found = _dataset()
    found.ReferencedSOPClassUID, found.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if frame is not None:
        found.ReferencedFrameNumber = frame
    return found


def _structure(segment: Segment, segmentation: Segmentation, source: Source) -> Any:
    found = _dataset()
    found.ROINumber, found.ROIName = segment.number, segment.name
    found.ReferencedFrameOfReferenceUID = source.first.FrameOfReferenceUID
    found.ROIGenerationAlgorithm = "AUTOMATIC"
    weights = algorithm_parameters(segmentation)["bundle_sha256"]
    found.ROIDescription = plain(f"{algorithm_name(segmentation)}, bundle {weights[:12]}")
    return found


def _contours(segment: Segment, segmentation: Segmentation, source: Source) -> Any:
    found = _dataset()
    found.ReferencedROINumber = segment.number
    found.ROIDisplayColor = list(COLORS[segment.label])
    contours = list(_contours_of(segmentation.mask == segment.label, segmentation.volume, source))
    if contours:
        found.ContourSequence = contours
    return found


def _contours_of(mask: npt.NDArray[np.bool_], volume: Volume, source: Source) -> Iterator[Any]:
    """Yield the contours of a mask `[z, row, col]`."""
    column_mm, row_mm = (np.diag([-1.0, -1.0, 1.0]) @ volume.grid.affine[:3, :2]).T
    slices = mask_on_source_grid(mask.astype(np.uint8), volume).T
    for index, image in enumerate(slices):
        header, frame = (source.headers[index], None) if source.frames is None else (source.first, source.frames[index])
        for corners in outlines(image > 0):
            points = _position(header, frame) + corners[:, :1] * row_mm + corners[:, 1:] * column_mm
            found = _dataset()
            found.ContourImageSequence = [_image(header, frame)]
            found.ContourGeometricType = "CLOSED_PLANAR"
            found.NumberOfContourPoints = len(points)
            # A decimal string has 16 characters at most.
            found.ContourData = [f"{value:.4f}" for value in points.ravel()]
            yield found


def _position(header: Any, frame: int | None) -> npt.NDArray[np.float64]:
    """Return the center of the first pixel of a slice in world mm (LPS+)."""
    if frame is None:
        return np.array([float(value) for value in header.ImagePositionPatient])
    groups = header.PerFrameFunctionalGroupsSequence[frame - 1]
    return np.array([float(value) for value in groups.PlanePositionSequence[0].ImagePositionPatient])


def _observation(segment: Segment) -> Any:
    found = _dataset()
    found.ObservationNumber = found.ReferencedROINumber = segment.number
    # Whether something is a target or an organ at risk is for a physician to say.
    found.RTROIInterpretedType, found.ROIInterpreter = "NONE", ""
    return found


def _dataset() -> Any:
    from pydicom import Dataset

    return Dataset()
