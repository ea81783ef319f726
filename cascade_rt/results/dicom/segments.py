"""The segments of a mask: which there are, and what they are called in DICOM."""

from dataclasses import dataclass
from typing import Any

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.results.dicom.identity import Uids
from cascade_rt.results.segmentation import Segmentation


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a DICOM object."""

    number: int
    """From 1, without gaps."""
    label: int
    """Its value in the mask."""
    name: str
    volume_ml: float
    tracking_uid: str
    """The same in every object of the segmentation."""

    @property
    def is_tumor(self) -> bool:
        """Whether this is the tumor, otherwise the pancreas."""
        return self.label == TUMOR_LABEL

    @property
    def category(self) -> Any:
        """The code of its category."""
        from pydicom.sr.codedict import codes

        return codes.cid7150.MorphologicallyAbnormalStructure if self.is_tumor else codes.cid7150.AnatomicalStructure

    @property
    def type(self) -> Any:
        """The code of what it is. A neoplasm, not a neoplasm of pancreas: that code is a diagnosis."""
        from pydicom.sr.codedict import codes

        return codes.SCT.Neoplasm if self.is_tumor else codes.SCT.Pancreas

    @property
    def regions(self) -> list[Any]:
        """The codes of where it is, unless its type says that."""
        from pydicom.sr.codedict import codes

        return [codes.SCT.Pancreas] if self.is_tumor else []


def segments_of(segmentation: Segmentation, uids: Uids) -> tuple[Segment, ...]:
    """Return the segments that the bundle looked for, whether or not it found them."""
    found = segmentation.measurements
    # The segments exclude one another, like the labels.
    organ = "Pancreas (without tumor)" if segmentation.tumor_sought else "Pancreas"
    sought = [(ORGAN_LABEL, organ, found.pancreas_ml)] if segmentation.organ_sought else []
    sought += [(TUMOR_LABEL, "Tumor", found.tumor_ml)] if segmentation.tumor_sought else []
    return tuple(
        Segment(number, label, name, volume_ml, uids.uid("tracking", str(label)))
        for number, (label, name, volume_ml) in enumerate(sought, start=1)
    )
