"""Write a mask as a DICOM segmentation (SEG) that refers to the slices of the scan."""

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cascade_rt.common.packages import import_package
from cascade_rt.common.version import __version__
from cascade_rt.results.dicom.identity import Uids, algorithm_name, algorithm_parameters, head, save_object
from cascade_rt.results.dicom.segments import Segment, segments_of
from cascade_rt.results.dicom.source import NEEDED_BY, Source
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.results.slice_panel import COLORS

SegKind = Literal["seg", "labelmap"]
"""`seg`: one bit per voxel and segment, which every archive and viewer reads. `labelmap`: one byte per voxel,
compressed; a younger class of object (DICOM supplement 243) that older archives and viewers do not know."""
_TYPES = {"seg": "BINARY", "labelmap": "LABELMAP"}
CLASSES = {"seg": "1.2.840.10008.5.1.4.1.1.66.4", "labelmap": "1.2.840.10008.5.1.4.1.1.66.7"}


def write_segmentation(
    segmentation: Segmentation, path: str | os.PathLike[str], *, kind: SegKind = "seg", overwrite: bool = False
) -> None:
    """Write the mask as DICOM SEG, each frame at the place of its slice.

    Empty frames are left out; if nothing was found, all are written, because an object must have a frame. A segment
    that was looked for and not found is listed and has no frame.

    Args:
        segmentation: The segmentation of a scan that was read from DICOM.
        path: Where to write.
        kind: How voxels are stored.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The scan was not read from DICOM, or DICOM results cannot refer to it (see `check_source`).
        BackendUnavailableError: highdicom is not installed.
        OutputExistsError: The file exists and `overwrite` is False.
        OutputError: The file cannot be written.
    """
    source, uids = Source.of(segmentation.volume), Uids.of(segmentation)
    result = _build(segmentation, source, uids, kind)
    _set_dimension_uid(result, uids.uid(kind, "dimensions"))
    result.ContentCreatorName = ""
    save_object(result, source, segmentation.volume, path, overwrite=overwrite)


def _build(segmentation: Segmentation, source: Source, uids: Uids, kind: SegKind) -> Any:
    hd = import_package("highdicom", needed_by=NEEDED_BY, extra="dicom")
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    segments = segments_of(segmentation, uids)
    planes = _numbered(source.planes(segmentation.mask, segmentation.volume), segments)
    return hd.seg.Segmentation(
        source_images=source.headers,
        pixel_array=planes,
        segmentation_type=_TYPES[kind],
        segment_descriptions=[_description(hd, segment, segmentation) for segment in segments],
        content_label="PANCREAS_TUMOR" if segmentation.tumor_sought else "PANCREAS",
        content_description="Made by software. For research only.",
        series_description="cascade-rt segmentation",
        transfer_syntax_uid=RLELossless if kind == "labelmap" else ExplicitVRLittleEndian,
        omit_empty_frames=bool(planes.any()),
        **head(kind, uids, source),
    )


def _numbered(planes: npt.NDArray[np.uint8], segments: tuple[Segment, ...]) -> npt.NDArray[np.uint8]:
    """Return the mask with the numbers of segments instead of labels; labels of no segment become 0."""
    numbers = np.zeros(256, dtype=np.uint8)
    for segment in segments:
        numbers[segment.label] = segment.number
    return numbers[planes]


def _description(hd: Any, segment: Segment, segmentation: Segmentation) -> Any:
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name=algorithm_name(segmentation),
        family=codes.cid7162.ArtificialIntelligence,
        version=__version__,
        parameters=algorithm_parameters(segmentation),
    )
    return hd.seg.SegmentDescription(
        segment.number,
        segment.name,
        segment.category,
        segment.type,
        "AUTOMATIC",
        algorithm,
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.name,
        anatomic_regions=segment.regions or None,
        display_color=hd.color.CIELabColor.from_rgb(*COLORS[segment.label]),
    )


def _set_dimension_uid(result: Any, uid: str) -> None:
    """Replace the UID that ties the indices of frames together, which highdicom draws at random."""
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
