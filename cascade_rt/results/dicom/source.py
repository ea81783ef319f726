"""The images that a DICOM result refers to: checked, and reduced to what a result needs of their headers."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.packages import import_package
from cascade_rt.errors import InputError, InputWarning
from cascade_rt.scans.dicom_headers import DicomHeaders
from cascade_rt.scans.volume import Volume, mask_on_source_grid

if TYPE_CHECKING:
    from pydicom import Dataset

NEEDED_BY = "a DICOM result"
"""The feature that needs pydicom and highdicom, in messages."""
_CT_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.2{kind}"
    for kind in ("", ".1", ".2")  # CT, enhanced CT, legacy converted enhanced CT
)
_OF_THE_SERIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_OF_THE_IMAGE = ("SOPClassUID", "SOPInstanceUID")
_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
)
"""Attributes of patient and study that every object must have, even if they are empty."""
_PATIENT_AND_STUDY = (
    *_TYPE_2,
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "StudyDescription"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
)
"""What a result says of patient and study: what an archive files by, and how the images were de-identified."""
_OF_THE_PIXELS = (
    *(*_OF_THE_SERIES, *_OF_THE_IMAGE, "Modality", "ImageType", "PositionReferenceIndicator"),
    *("Rows", "Columns", "PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"),
    *("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_DATES = (("StudyDate", "StudyTime"), ("SeriesDate", "SeriesTime"), ("AcquisitionDate", "AcquisitionTime"))
_NO_DATE = ("19000101", "000000")
"""Content date and time if the headers state none: both must have a value, and the clock would change the bytes."""


def check_source(volume: Volume) -> DicomHeaders:
    """Check that DICOM results can refer to the images of a scan, and return their headers.

    Raises:
        InputError: The scan was not read from DICOM (`E_NOT_DICOM`), its headers lack UIDs or contradict each other
            (`E_DICOM_UIDS`), it is not stored as CT images (`E_DICOM_CLASS`), or what the headers say of patient or
            study cannot be read (`E_DICOM_HEADER`).
        BackendUnavailableError: pydicom is not installed.
    """
    shown = volume.name if volume.path is None else str(volume.path)
    if volume.dicom is None:
        sentence = "was not read from DICOM, so there are no images that a DICOM result could refer to"
        raise InputError(f"{shown}: {sentence}; leave DICOM results out, or pass the DICOM series", code="E_NOT_DICOM")
    import_package("pydicom", needed_by=NEEDED_BY, extra="dicom")
    _check_uids(shown, volume.dicom)
    classes = {str(header.SOPClassUID) for header in volume.dicom.datasets}
    if not classes <= _CT_CLASSES:
        sentence = "is not stored as CT images, so no DICOM result can refer to it"
        raise InputError(f"{shown}: {sentence}; leave DICOM results out", code="E_DICOM_CLASS")
    try:
        _patient_and_study(volume.dicom)
    except (ValueError, TypeError, NotImplementedError, LookupError):
        # Without the error of pydicom, which may quote the patient.
        sentence = "has a damaged header, which DICOM results cannot copy patient and study from"
        raise InputError(f"{shown}: {sentence}; export the series again", code="E_DICOM_HEADER") from None
    return volume.dicom


def _check_uids(shown: str, headers: DicomHeaders) -> None:
    """Raise InputError if an image cannot be referred to, or not as one of the same series."""
    from pydicom.uid import UID

    remedy = "export the series with its UIDs, or leave DICOM results out"
    for keyword in (*_OF_THE_IMAGE, *_OF_THE_SERIES):
        with quiet_pydicom():
            found = [str(header.get(keyword) or "") for header in headers.datasets]
        bad = [uid for uid in found if not UID(uid, validation_mode=0).is_valid]
        if bad:
            what = "no" if not any(bad) else "no valid"
            sentence = f"{len(bad)} of {len(found)} headers have {what} {keyword}, which DICOM results refer to"
            raise InputError(f"{shown}: {sentence}; {remedy}", code="E_DICOM_UIDS")
        if keyword in _OF_THE_SERIES and len(set(found)) > 1:
            sentence = f"its headers have {len(set(found))} different {keyword}s, but a DICOM result belongs to one"
            raise InputError(f"{shown}: {sentence}; {remedy}", code="E_DICOM_UIDS")
        if keyword == "SOPInstanceUID" and len(set(found)) < len(found):
            sentence = "several images have the same SOPInstanceUID, so a DICOM result cannot tell them apart"
            raise InputError(f"{shown}: {sentence}; {remedy}", code="E_DICOM_UIDS")


def doubts_of_tilt(volume: Volume) -> tuple[InputWarning, ...]:
    """Return the warning that viewers may misplace a DICOM SEG of slices that are not stacked along their normal."""
    if not is_sheared(volume):
        return ()
    sentence = "each frame of the DICOM SEG has the place of its slice, but viewers that make a volume of them"
    return (InputWarning("W_DICOM_TILT", f"the slices are tilted: {sentence} (dcmqi, 3D Slicer) ignore the tilt"),)


def is_sheared(volume: Volume) -> bool:
    """Whether the slices are not stacked along their normal, as with a tilted gantry."""
    return any(warning.code == "W_SHEAR" for warning in volume.warnings)


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """The images of a scan, for one result."""

    headers: tuple["Dataset", ...]
    """Copies of the headers without patient and study, which the libraries that build an object must not see: they log
    what they doubt. One per slice, or a single one of a multi-frame object."""
    patient_and_study: "Dataset"
    """What the result copies."""
    frames: tuple[int, ...] | None
    """See `DicomHeaders`."""
    content_date: tuple[str, str]
    """Date and time of the content: those of the study, so that the same scan gives the same bytes."""

    @classmethod
    def of(cls, volume: Volume) -> "Source":
        """Return the images of a scan. Raises like `check_source`."""
        found, spacing = check_source(volume), _slice_spacing(volume)
        headers = tuple(_reduced(header, spacing) for header in found.datasets)
        return cls(headers, _patient_and_study(found), found.frames, _content_date(found))

    @property
    def first(self) -> Any:
        """The first header, for what is the same in all."""
        return self.headers[0]

    def planes(self, mask: npt.NDArray[np.uint8], volume: Volume) -> npt.NDArray[np.uint8]:
        """Return a mask `[z, row, col]` as `[frame, row, col]`, in the order of the images or of the frames."""
        slices = mask_on_source_grid(mask, volume).T
        if self.frames is None:
            return slices
        planes = np.zeros((int(self.first.NumberOfFrames), *slices.shape[1:]), dtype=np.uint8)
        planes[np.subtract(self.frames, 1)] = slices
        return planes


def _content_date(headers: DicomHeaders) -> tuple[str, str]:
    header = headers.datasets[0]
    for keywords in _DATES:
        with quiet_pydicom():
            date, time = (str(header.get(keyword) or "") for keyword in keywords)
        if len(date) == 8 and date.isdecimal():
            return date, time if len(time) >= 6 and time[:6].isdecimal() else _NO_DATE[1]
    return _NO_DATE


def _reduced(header: Any, slice_spacing_mm: float) -> Any:
    from pydicom import Dataset

    reduced = Dataset()
    for keyword in _OF_THE_PIXELS:
        if keyword in header:
            reduced[keyword] = header[keyword]
    for keyword in _TYPE_2:
        setattr(reduced, keyword, "")
    if "PixelSpacing" in reduced:
        # Readers that make a volume of the frames go by this distance, and by the thickness only if it is missing.
        reduced.SpacingBetweenSlices = f"{slice_spacing_mm:.9g}"
        if not reduced.get("SliceThickness"):
            reduced.SliceThickness = reduced.SpacingBetweenSlices
    return reduced


def _patient_and_study(headers: DicomHeaders) -> Any:
    from pydicom import Dataset

    header, copied = headers.datasets[0], Dataset()
    with quiet_pydicom():
        for keyword in _PATIENT_AND_STUDY:
            if keyword in header:
                copied[keyword] = header[keyword]
            elif keyword in _TYPE_2:
                setattr(copied, keyword, "")
    return copied


def _slice_spacing(volume: Volume) -> float:
    """Return the distance in mm between slices along their normal."""
    column, row, step = volume.grid.affine[:3, :3].T
    normal = np.cross(column, row)
    return float(abs(step @ normal) / np.linalg.norm(normal))


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Suppress what pydicom warns of and logs: it quotes what it doubts, such as a date of birth."""
    logger = logging.getLogger("pydicom")

    def nothing(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(nothing)
