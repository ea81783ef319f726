"""The DICOM headers of a scan, kept for DICOM results that refer to it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, eq=False, slots=True)
class DicomHeaders:
    """The headers of the objects that a scan was read from, without their pixels."""

    datasets: tuple["Dataset", ...]
    """One per slice, in the order of the last axis of the scan's source grid; or a single multi-frame object."""
    frames: tuple[int, ...] | None = None
    """For a multi-frame object, the number of the frame of each slice, from 1; otherwise None."""
