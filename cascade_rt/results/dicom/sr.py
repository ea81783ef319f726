"""Write the measurements of a mask as a DICOM structured report (SR, TID 1500) that refers to its segments."""

import os
from typing import Any

from cascade_rt.common.packages import import_package
from cascade_rt.common.version import __version__
from cascade_rt.results.dicom.identity import (
    MANUFACTURER,
    Uids,
    algorithm_name,
    algorithm_parameters,
    head,
    plain,
    save_object,
)
from cascade_rt.results.dicom.seg import CLASSES
from cascade_rt.results.dicom.segments import Segment, segments_of
from cascade_rt.results.dicom.source import NEEDED_BY, Source
from cascade_rt.results.lesions import Lesion
from cascade_rt.results.segmentation import STATUS_SENTENCES, Segmentation

MOST_LESIONS = 50
"""Maximum number of lesions with a group of their own, largest first: a mask full of speckle has thousands."""
_OWN_CODES = "99CASCADERT"
"""Designator of our own codes. There is none for the diameter of a sphere of the same volume, and the plain diameter of
SNOMED CT would be taken for one that was measured across the lesion."""


def write_report(segmentation: Segmentation, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write volumes and lesions as a Comprehensive 3D SR: automatic, complete, not verified by anybody.

    There is a group for each segment, which refers to it in the object that `write_segmentation` writes of the same
    segmentation (kind `seg`), and one for each lesion, at most 50. The text has the status, the intended use of the
    bundle and how many lesions have no group.

    Args:
        segmentation: The segmentation of a scan that was read from DICOM.
        path: Where to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The scan was not read from DICOM, or DICOM results cannot refer to it (see `check_source`).
        BackendUnavailableError: highdicom is not installed.
        OutputExistsError: The file exists and `overwrite` is False.
        OutputError: The file cannot be written.
    """
    hd = import_package("highdicom", needed_by=NEEDED_BY, extra="dicom")
    from pydicom.uid import ExplicitVRLittleEndian

    source, uids = Source.of(segmentation.volume), Uids.of(segmentation)
    result = hd.sr.Comprehensive3DSR(
        evidence=[*source.headers, _reference(source, uids)],
        content=_content(hd, segmentation, source, uids),
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="cascade-rt measurements",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **head("sr", uids, source),
    )
    save_object(result, source, segmentation.volume, path, overwrite=overwrite)


def _reference(source: Source, uids: Uids) -> Any:
    """Return what the report needs to know of the segmentation object, which need not have been written yet."""
    from pydicom import Dataset

    found = Dataset()
    found.SOPClassUID, found.SOPInstanceUID = CLASSES["seg"], uids.uid("seg", "instance")
    found.StudyInstanceUID, found.SeriesInstanceUID = source.first.StudyInstanceUID, uids.uid("seg", "series")
    return found


def _content(hd: Any, segmentation: Segmentation, source: Source, uids: Uids) -> Any:
    from pydicom.sr.codedict import codes

    algorithm = hd.sr.AlgorithmIdentification(
        algorithm_name(segmentation),
        __version__,
        [f"{name}={value}" for name, value in algorithm_parameters(segmentation).items()],
    )
    lesions, segments = segmentation.measurements.lesions[:MOST_LESIONS], segments_of(segmentation, uids)
    groups = [_segment_group(hd, segment, segmentation, algorithm, source, uids) for segment in segments]
    groups += [_lesion_group(hd, lesion, number, algorithm, uids) for number, lesion in enumerate(lesions, start=1)]
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_observer(hd, uids)),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
    )
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    report[0].ContentSequence.extend(
        hd.sr.TextContentItem(codes.DCM.Comment, text, relationship_type=contains) for text in _texts(segmentation)
    )
    return report


def _observer(hd: Any, uids: Uids) -> Any:
    from pydicom.sr.codedict import codes

    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uids.uid("device"), name="cascade-rt", manufacturer_name=MANUFACTURER, model_name="cascade-rt"
    )
    return hd.sr.ObserverContext(codes.DCM.Device, device)


def _segment_group(
    hd: Any, segment: Segment, segmentation: Segmentation, algorithm: Any, source: Source, uids: Uids
) -> Any:
    from pydicom.sr.codedict import codes

    reference = hd.sr.ReferencedSegment(
        sop_class_uid=CLASSES["seg"],
        sop_instance_uid=uids.uid("seg", "instance"),
        segment_number=segment.number,
        source_series=hd.sr.SourceSeriesForSegmentation(source.first.SeriesInstanceUID),
    )
    measured = [_volume(hd, segment.volume_ml)]
    if segment.is_tumor:
        count = len(segmentation.measurements.lesions)
        measured.append(hd.sr.Measurement(codes.SCT.NumberOfLesions, count, codes.UCUM.NoUnits))
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(segment.tracking_uid, segment.name),
        referenced_segment=reference,
        finding_type=segment.type,
        finding_category=segment.category,
        finding_sites=[hd.sr.FindingSite(codes.SCT.Pancreas)],
        algorithm_id=algorithm,
        measurements=measured,
    )


def _lesion_group(hd: Any, lesion: Lesion, number: int, algorithm: Any, uids: Uids) -> Any:
    from pydicom.sr.codedict import codes

    equivalent = hd.sr.CodedConcept("SPHERE_DIAMETER", _OWN_CODES, "Diameter of a sphere of the same volume")
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uids.uid("tracking", "lesion", str(number)), f"Lesion {number}"),
        finding_type=codes.SCT.Neoplasm,
        finding_sites=[hd.sr.FindingSite(codes.SCT.Pancreas)],
        algorithm_id=algorithm,
        measurements=[
            _volume(hd, lesion.volume_ml),
            hd.sr.Measurement(equivalent, _rounded(lesion.diameter_mm), codes.UCUM.Millimeter),
        ],
    )


def _volume(hd: Any, volume_ml: float) -> Any:
    from pydicom.sr.codedict import codes

    return hd.sr.Measurement(codes.SCT.Volume, _rounded(volume_ml), hd.sr.CodedConcept("ml", "UCUM", "ml"))


def _rounded(value: float) -> float:
    """Return a value with no more digits than a DICOM decimal string can hold, nor than mean anything."""
    return round(value, 4)


def _texts(segmentation: Segmentation) -> list[str]:
    longest = 1024
    texts = [
        f"Found by software and not verified: {STATUS_SENTENCES[segmentation.status]}.",
        f"Intended use: {segmentation.provenance['bundle']['intended_use']}",
    ]
    left_out = len(segmentation.measurements.lesions) - MOST_LESIONS
    if left_out > 0:
        texts.append(f"{left_out} more lesions, none of them larger, are counted but not listed.")
    return [plain(text, longest) for text in texts]
