"""What a DICOM result says of itself: its UIDs, the algorithm, the equipment, its dates. Nothing of it is random."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cascade_rt.common.atomic import atomic_write
from cascade_rt.common.version import __version__
from cascade_rt.errors import InputError, OutputError
from cascade_rt.results.dicom.source import Source, quiet_pydicom
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.scans.dicom.headers import read_header
from cascade_rt.scans.dicom.signatures import is_dicom
from cascade_rt.scans.dicom.sources import FileOnDisk
from cascade_rt.scans.volume import Volume, refuse_scan

MANUFACTURER = "cascade-rt"
SERIES_NUMBERS = {"seg": 901, "labelmap": 901, "sr": 902, "rtstruct": 903}
"""High, so that viewers list the results after the images."""
_LONGEST_LO = 64
"""Maximum number of characters of a DICOM long string."""


@dataclass(frozen=True, slots=True)
class Uids:
    """The UIDs of the DICOM results of one segmentation."""

    digest: str
    """Hash of what the results depend on: bundle, scan, mask, and the version that writes them."""

    @classmethod
    def of(cls, segmentation: Segmentation) -> "Uids":
        """Return the UIDs of a segmentation. A different mask has different ones: an archive keeps the first."""
        mask = hashlib.sha256(np.ascontiguousarray(segmentation.mask).data).hexdigest()
        bundle = segmentation.provenance["bundle"]["sha256"]
        parts = [bundle, _input_hash(segmentation.volume), mask, __version__]
        return cls(hashlib.sha256(json.dumps(parts).encode()).hexdigest())

    def uid(self, *parts: str) -> str:
        """Return the UID of an object or a part of it, such as `seg`, `instance`."""
        from pydicom.uid import generate_uid

        return str(generate_uid(entropy_srcs=[self.digest, json.dumps(parts)]))


def _input_hash(volume: Volume) -> str:
    """Return the hash of the files of a scan or, if it is unknown, of the UIDs of its images."""
    if volume.file is not None:
        return volume.file.sha256
    datasets = volume.dicom.datasets if volume.dicom else ()
    images = [str(header.SOPInstanceUID) for header in datasets]
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()


def plain(text: str, longest: int = _LONGEST_LO) -> str:
    """Return a text that is valid in every DICOM character set, on one line, cut to a number of characters.

    The character set of an object is that of the patient's name, which need not have the characters of a bundle's name.
    """
    ascii_text = " ".join(text.split()).encode("ascii", "replace").decode().replace("\\", "/")
    return ascii_text[:longest]


def algorithm_name(segmentation: Segmentation) -> str:
    """Return the name of the algorithm: that of the bundle."""
    return plain(segmentation.provenance["bundle"]["name"])


def algorithm_parameters(segmentation: Segmentation) -> dict[str, str]:
    """Return what identifies the weights."""
    return {"bundle_sha256": segmentation.provenance["bundle"]["sha256"]}


def head(kind: str, uids: Uids, source: Source) -> dict[str, Any]:
    """Return the arguments of highdicom that are the same for every kind of object."""
    date, time = source.content_date
    return {
        "series_instance_uid": uids.uid(kind, "series"),
        "series_number": SERIES_NUMBERS[kind],
        "sop_instance_uid": uids.uid(kind, "instance"),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "cascade-rt",
        "software_versions": __version__,
        "device_serial_number": "none",
        "content_date": date,
        "content_time": time,
    }


def save_object(result: Any, source: Source, volume: Volume, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Give an object its patient, its study and its dates, and write it.

    Raises:
        OutputExistsError: The file exists and `overwrite` is False.
        OutputError: The path is that of the scan or of a CT image, or the file cannot be written.
    """
    from pydicom import dcmwrite

    refuse_scan(path, volume)
    _refuse_image(Path(path))
    date, time = source.content_date
    result.InstanceCreationDate, result.InstanceCreationTime = date, time
    for contribution in result.get("ContributingEquipmentSequence", ()):
        # highdicom names itself, with the time of the clock.
        contribution.ContributionDateTime = date + time
    for element in source.patient_and_study:
        result[element.tag] = element

    def write(file: BinaryIO) -> None:
        with quiet_pydicom():
            dcmwrite(file, result, enforce_file_format=True)

    atomic_write(Path(path), write, overwrite=overwrite)


def _refuse_image(path: Path) -> None:
    """Raise OutputError if a file is a CT image, such as a slice of the scan, which is a folder: no result is one."""
    try:
        modality = read_header(FileOnDisk(path)).dataset.get("Modality") if path.exists() and is_dicom(path) else None
    except InputError:
        return
    if modality == "CT":
        sentence = "this is a CT image, which is never overwritten; choose another name"
        raise OutputError(f"{path}: {sentence}", code="E_SAME_FILE")
