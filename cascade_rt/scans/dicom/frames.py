"""Slices of an enhanced multi-frame CT, whose fields lie in functional groups, for all frames or for each."""

from collections.abc import Mapping
from typing import Any

from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.headers import Header, dicom_gate
from cascade_rt.scans.dicom.slices import Slice, image_shape, place

ENHANCED_CT = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
"""SOP class UIDs of enhanced CT and of its form that was converted from single images."""
_LOCALIZER = "LOCALIZER"


def is_multi_frame(dataset: Any) -> bool:
    """Return whether a dataset is an enhanced CT."""
    return str(dataset.get("SOPClassUID") or "") in ENHANCED_CT


def parse_frames(header: Header) -> list[Slice]:
    """Parse the slices of an enhanced CT, in the order of its frames, without localizers.

    Raises:
        InputError: A field is missing or invalid.
    """
    shown, dataset = header.file.shown, header.dataset
    with dicom_gate(shown):
        shape = image_shape(shown, dataset)
        count = int(dataset.get("NumberOfFrames") or 1)
        groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        if len(groups) != count:
            sentence = f"has {count} frames but describes {len(groups)} of them"
            raise InputError(f"{shown}: {sentence}; export the scan again", code="E_DIMS")
        if int(dataset.get("SamplesPerPixel") or 1) > 1:
            raise InputError(f"{shown}: has color channels; export the original CT", code="E_NDIM")
        common = _fields(shared[0]) if shared else {}
        slices = [_parse(header, index, {**common, **_fields(own)}, shape) for index, own in enumerate(groups)]
        return [entry for entry in slices if entry is not None]


def _parse(header: Header, index: int, fields: Mapping[str, Any], shape: tuple[int, int]) -> Slice | None:
    if _LOCALIZER in (fields.get("FrameType") or ()):
        return None
    placing = [fields.get(tag) for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")]
    rescale = [fields.get(tag) for tag in ("RescaleSlope", "RescaleIntercept", "RescaleType")]
    shown = f"{header.file.shown}: frame {index + 1}"
    return place(header, shown, placing, rescale, shape, None, index)


def _fields(group: Any) -> dict[str, Any]:
    """Return the elements of the functional groups that place and scale a frame."""
    wanted = {
        "PlanePositionSequence": ("ImagePositionPatient",),
        "PlaneOrientationSequence": ("ImageOrientationPatient",),
        "PixelMeasuresSequence": ("PixelSpacing",),
        "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
        "CTImageFrameTypeSequence": ("FrameType",),
    }
    found = {}
    for sequence, tags in wanted.items():
        for item in (group.get(sequence) or ())[:1]:
            found.update({tag: item.get(tag) for tag in tags if item.get(tag) not in (None, "")})
    return found
