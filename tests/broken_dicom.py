"""A corpus of broken and odd DICOM studies, each with what has to become of it.

All of them are made from one small CT by changing what their name says. `BROKEN` are refused with a code; `ODD` are
segmented, with the warnings named and no others. Every header names a patient.
"""

import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import MPEG2MPML, JPEGLSLossless, RLELossless

from tests.broken_scans import HU, ct
from tests.dicom_files import (
    BODY,
    SYNTAXES,
    Array,
    SliceFile,
    axial_slices,
    changed,
    stored_as,
    write_enhanced,
    write_series,
    zipped,
)

PATIENT = (
    ("PatientName", "DOE^JOHN"),
    ("PatientID", "MRN12345"),
    ("PatientBirthDate", "19551224"),
    ("StudyDescription", "Ward7 of DOE"),
    ("SeriesDescription", "DOE JOHN ABD"),
    ("StudyInstanceUID", "1.2.840.99"),
    ("FrameOfReferenceUID", "1.2.840.98"),
    ("SeriesNumber", 3),
)
WORDS = ("DOE", "JOHN", "MRN12345", "19551224", "Ward7", "1.2.840.99")
"""Words that no output may hold."""
OTHER_SERIES: dict[str, Any] = {"series": "1.2.4", "changes": (*PATIENT, ("SeriesNumber", 7))}
Write = Callable[[Path], Path]


@dataclass(frozen=True)
class Study:
    """A study, and what the command line has to make of it."""

    name: str
    write: Write
    """Writes it into a folder, and returns the path that is given to the command."""
    code: str | None = None
    """Why it is refused; None where it is segmented."""
    warnings: frozenset[str] = frozenset()
    """What is doubtful about it where it is segmented."""
    options: tuple[str, ...] = ()
    has_same_mask: bool = True
    """Whether the mask is that of the CT that all are made from."""


def slices(hu: Array = HU, **options: Any) -> list[SliceFile]:
    """The slices of the CT, with a patient in their headers, and further elements from `more`."""
    more = options.pop("more", ())
    return axial_slices(hu, **{**BODY, "changes": (*PATIENT, *more), **options})


def having(*elements: tuple[str, Any], at: int | None = None, **changes: Any) -> list[SliceFile]:
    """The slices with other elements, in all or in one of them."""
    return [
        replace(entry, changes=(*entry.changes, *elements), **changes) if at in (None, place) else entry
        for place, entry in enumerate(slices())
    ]


def series(found: Sequence[SliceFile], *beside: SliceFile) -> Write:
    """A folder with these slices, and other files beside them."""

    def write(folder: Path) -> Path:
        for number, entry in enumerate(beside):
            entry.write(folder / "scan" / f"beside{number}.dcm")
        return write_series(folder / "scan", found)

    return write


def with_file(name: str, content: bytes | Callable[[Path], object], found: Sequence[SliceFile] | None = None) -> Write:
    """The series, and one file more or instead."""

    def write(folder: Path) -> Path:
        path = write_series(folder / "scan", slices() if found is None else found) / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        return folder / "scan"

    return write


def edited(edit: Callable[[bytes], bytes], number: int = 3, syntax: str | None = None) -> Write:
    """The series, one of whose files has other bytes."""

    def write(folder: Path) -> Path:
        path = write_series(folder / "scan", slices()) / f"1-{number:03d}.dcm"
        for file in path.parent.iterdir() if syntax else ():
            stored_as(file, syntax or "")
        path.write_bytes(edit(path.read_bytes()))
        return folder / "scan"

    return write


def damaged_pixels(content: bytes) -> bytes:
    """Noise in place of the last quarter of a file."""
    start = 3 * len(content) // 4
    noise = np.random.default_rng(2).integers(0, 256, len(content) - start - 8, dtype=np.uint8).tobytes()
    return content[:start] + noise + content[-8:]


def relabelled(syntax: str) -> Callable[[bytes], bytes]:
    """A file whose header names another transfer syntax than it has."""

    def edit(content: bytes) -> bytes:
        old = b"1.2.840.10008.1.2.1\0"
        assert content.count(old) == 1
        new = syntax.encode()
        new += b"\0" * (len(new) % 2)
        at = content.index(old)
        meta = struct.pack("<I", int.from_bytes(content[140:144], "little") + len(new) - len(old))
        changed_bytes = content[: at - 2] + struct.pack("<H", len(new)) + new + content[at + len(old) :]
        return changed_bytes[:140] + meta + changed_bytes[144:]

    return edit


def enhanced(edit: Callable[[Any], object] = lambda _: None, found: Sequence[SliceFile] | None = None) -> Write:
    """An enhanced CT, after an edit of its dataset."""

    def write(folder: Path) -> Path:
        path = write_enhanced(folder / "scan.dcm", slices() if found is None else found)
        dataset = pydicom.dcmread(path)
        edit(dataset)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        return path

    return write


def packed(edit: Callable[[Path], object] = lambda _: None, found: Sequence[SliceFile] | None = None) -> Write:
    """A zip archive, after an edit of the file."""

    def write(folder: Path) -> Path:
        path = zipped(write_series(folder / "files", slices() if found is None else found), folder / "scan.zip")
        edit(path)
        return path

    return write


def rewrite(edit: Callable[[bytearray], object]) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        edit(content)
        path.write_bytes(content)

    return change


def encrypt(content: bytearray) -> None:
    """Say that every member is encrypted."""
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 4)


def promise_much(content: bytearray) -> None:
    """Say that the first member unpacks to almost 4 GiB, and so do all others."""
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
        at = content.find(b"PK\x01\x02", at + 4)


def damage_a_member(content: bytearray) -> None:
    content[len(content) // 2] ^= 0xFF


def escaping_names(path: Path) -> None:
    """Names of members that would leave the folder, or be absolute."""
    with zipfile.ZipFile(path) as archive:
        contents = [archive.read(entry) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"../../{'/etc' if number % 2 else 'DOE^JOHN'}/{number}", content)
        archive.writestr("__MACOSX/._1-001.dcm", b"no DICOM")


def without_preamble(folder: Path) -> Path:
    for path in write_series(folder / "scan", slices()).iterdir():
        pydicom.dcmwrite(path, pydicom.Dataset(pydicom.dcmread(path)), implicit_vr=True, little_endian=True)
    return folder / "scan"


def overlay_in_unused_bits(folder: Path) -> Path:
    found = having(("BitsStored", 12), ("HighBit", 11))
    for entry in found:
        entry.write(folder / "scan" / f"{entry.number}.dcm")
    for path in (folder / "scan").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") | 0x4000).tobytes()
        dataset.save_as(path)
    return folder / "scan"


def signed(value: Array) -> tuple[tuple[str, Any], ...]:
    return ("PixelRepresentation", 1), ("RescaleIntercept", 0), ("PixelData", value.astype("<i2").tobytes())


def stored_signed(hu: Array, *more: tuple[str, Any]) -> list[SliceFile]:
    return [replace(entry, changes=(*entry.changes, *signed(hu[place]), *more)) for place, entry in enumerate(slices())]


def padded(value: int) -> Array:
    """The CT with a fifth of each slice, on one side, of another value."""
    hu = HU.copy()
    hu[:, :, -HU.shape[2] // 5 :] = value
    return hu


def tilted(degrees: float) -> list[SliceFile]:
    """Slices that are shifted backward with their height."""
    step = 2.5 * np.tan(np.deg2rad(degrees))
    return [
        replace(entry, position=(entry.position[0], entry.position[1] + step * place, entry.position[2]))
        for place, entry in enumerate(slices())
    ]


def moved(index: int, *by: float) -> list[SliceFile]:
    found = slices()
    position = tuple(np.add(found[index].position, by).tolist())
    return changed(found, index, position=position)


def prone() -> list[SliceFile]:
    return [
        replace(
            entry, hu=entry.hu[::-1, ::-1], orientation=(-1, 0, 0, 0, -1, 0), position=(2.9, 11.2, entry.position[2])
        )
        for entry in slices()
    ]


def head_first() -> list[SliceFile]:
    """Columns and rows such that the normal points to the feet, as of a patient scanned feet first."""
    return [
        replace(entry, hu=entry.hu[:, ::-1], orientation=(-1, 0, 0, 0, 1, 0), position=(2.9, -20.0, entry.position[2]))
        for entry in slices()
    ]


def beside(modality: str = "CT", **changes: Any) -> SliceFile:
    """Another file of the same study, in a series of its own."""
    return replace(slices()[0], series="1.2.77", modality=modality, **changes)


LOCALIZER = replace(slices()[0], image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), position=(0, 0, 0), number=0)
SCREEN_SAVE = beside(
    image_type=("DERIVED", "SECONDARY", "OTHER"),
    changes=(*PATIENT, ("RescaleSlope", None), ("RescaleIntercept", None), ("ImagePositionPatient", None)),
)


def _studies(code: str | None, warnings: str = "", **writes: Write) -> list[Study]:
    return [Study(name, write, code, frozenset(warnings.split())) for name, write in writes.items()]


BROKEN: list[Study] = [
    *_studies(
        "E_SLICES_MISSING",
        slice_missing=series([*slices()[:2], *slices()[3:]]),
        two_slices_missing=series([*slices()[:2], *slices()[4:]]),
        frame_missing=enhanced(found=[*slices()[:2], *slices()[3:]]),
        slice_missing_in_a_zip=packed(found=[*slices()[:2], *slices()[3:]]),
    ),
    *_studies(
        "E_SLICES_DOUBLED",
        slice_doubled_with_other_pixels=series(slices(), replace(slices()[3], hu=HU[3] + 20, number=9)),
        two_phases_in_one_series=series(
            slices(), *[replace(each, hu=each.hu + 9, number=each.number + 6) for each in slices()]
        ),
        two_acquisitions=series(having(("AcquisitionNumber", 1)), *having(("AcquisitionNumber", 2), hu=HU[0])),
        two_phases_in_one_enhanced_ct=enhanced(
            found=[*slices(), *[replace(each, hu=each.hu + 9) for each in slices()]]
        ),
    ),
    *_studies(
        "E_SLICES_UNEVEN",
        slice_out_of_place=series(moved(2, 0, 0, 0.7)),
        slice_shifted_sideways=series(moved(2, 5, 0, 0)),
        distances_that_grow=series(
            [replace(each, position=(-30, -20, 2.5 * place + 0.3 * place**2)) for place, each in enumerate(slices())]
        ),
    ),
    *_studies(
        "E_SLICES_DIFFER",
        slice_of_another_size=series(changed(slices(), 2, hu=HU[2, :30])),
        slice_of_another_spacing=series(changed(slices(), 2, spacing=(0.8, 0.9))),
        slice_of_another_orientation=series(changed(slices(), 2, orientation=(0.8, 0.6, 0, -0.6, 0.8, 0))),
        two_frames_of_reference=series(having(("FrameOfReferenceUID", "1.2.5"), at=4)),
    ),
    *_studies("E_ONE_SLICE", one_slice=series(slices()[:1]), one_frame=enhanced(found=slices()[:1])),
    *_studies(
        "E_SERIES",
        two_series=series(slices(), *slices(HU[:4], **OTHER_SERIES)),
        three_series_in_a_zip=packed(
            found=[
                *slices(),
                *slices(HU[:4], **OTHER_SERIES),
                *slices(HU[:2], series="1.2.5", more=(("SeriesNumber", 9),)),
            ]
        ),
    ),
    Study("series_that_is_not_there", series(slices()), "E_SERIES", options=("--series", "4")),
    *_studies(
        "E_NOT_CT",
        magnetic_resonance=series(slices(modality="MR")),
        localizer_alone=series([LOCALIZER]),
        screen_saves_alone=series([SCREEN_SAVE]),
        dose_report_alone=series([beside("SR")]),
        slice_of_another_modality=series(changed(slices(), 3, modality="OT")),
        zip_of_text=packed(lambda path: zipfile.ZipFile(path, "w").writestr("DOE.txt", "text") or None),
        zip_of_nothing=packed(lambda path: zipfile.ZipFile(path, "w").close()),
    ),
    *_studies(
        "E_NO_RESCALE",
        no_slope=series(having(("RescaleSlope", None))),
        no_intercept=series(having(("RescaleIntercept", None), at=2)),
        enhanced_without_rescale=enhanced(
            lambda found: delattr(found.SharedFunctionalGroupsSequence[0], "PixelValueTransformationSequence")
        ),
    ),
    *_studies(
        "E_SLOPE", slope_0=series(having(("RescaleSlope", 0))), slope_infinite=series(having(("RescaleSlope", "1e999")))
    ),
    *_studies(
        "E_NOT_HU",
        optical_density=series(having(("RescaleType", "OD"))),
        windowed_to_bytes=series(slices(((np.clip(HU, -150, 250) + 150) // 2 + 20).astype(np.int16))),
    ),
    *_studies(
        "E_AFFINE",
        no_position=series(having(("ImagePositionPatient", None), at=2)),
        no_orientation=series(having(("ImageOrientationPatient", None), at=2)),
        parallel_directions=series(slices(orientation=(1, 0, 0, 1, 0, 0))),
        enhanced_without_a_position=enhanced(
            lambda found: delattr(found.PerFrameFunctionalGroupsSequence[2], "PlanePositionSequence")
        ),
    ),
    *_studies(
        "E_SPACING",
        spacing_0=series([replace(each, spacing=(0.0, 0.7)) for each in slices()]),
        spacing_negative=series([replace(each, spacing=(0.8, -0.7)) for each in slices()]),
        rows_0=series(having(("Rows", 0))),
    ),
    *_studies(
        "E_DIMS",
        no_rows=series(having(("Rows", None))),
        frames_not_described=enhanced(lambda found: setattr(found, "NumberOfFrames", 7)),
    ),
    *_studies(
        "E_NDIM",
        colours=series(having(("SamplesPerPixel", 3))),
        frames_in_a_plain_ct=series(having(("NumberOfFrames", 3))),
    ),
    *_studies(
        "E_DTYPE",
        one_bit=series(having(("BitsAllocated", 1))),
        more_bits_than_there_are=series(having(("BitsStored", 20))),
    ),
    *_studies(
        "E_TRUNCATED",
        pixels_too_short=series(having(("PixelData", bytes(100)), at=2)),
        no_pixels=series(having(("PixelData", None), at=2)),
        file_cut_in_its_header=edited(lambda content: content[:700]),
        file_cut_in_its_pixels=edited(lambda content: content[:-500]),
        zip_cut=packed(rewrite(lambda content: content.__delitem__(slice(len(content) // 2, None)))),
    ),
    *_studies(
        "E_SIZE_LIE",
        half_the_rows=series(having(("Rows", 20))),
        twice_the_pixels=series(having(("PixelData", bytes(40 * 48 * 4)))),
    ),
    *_studies(
        "E_CORRUPT",
        number_that_is_a_name=edited(lambda content: content.replace(b"-30.0\\", b"DOE\x1b[\\")),
        rle_of_noise=edited(damaged_pixels, syntax=RLELossless),
        jpeg_ls_cut=edited(lambda content: content[: len(content) // 2] + content[-8:], syntax=JPEGLSLossless),
        deflated_and_damaged=edited(damaged_pixels, syntax=SYNTAXES["deflated"]),
        zip_damaged=packed(rewrite(damage_a_member)),
        zip_of_noise=packed(rewrite(lambda content: content.__setitem__(slice(4, None), bytes(4000) + content[-22:]))),
    ),
    *_studies(
        "E_NOT_DICOM",
        empty_slice=with_file("1-007.dcm", b""),
        web_page_as_slice=with_file("1-007.dcm", b"<html>Please log in</html>" * 20),
        header_alone=with_file("1-007.dcm", bytes(128) + b"DICM"),
    ),
    *_studies(
        "E_NOT_A_FILE",
        pipe_among_the_slices=with_file("1-007.dcm", os.mkfifo),
        link_to_a_device=with_file("1-007.dcm", lambda path: path.symlink_to("/dev/zero")),
    ),
    *_studies("E_SYNTAX", film=edited(relabelled(MPEG2MPML)), unknown_syntax=edited(relabelled("1.2.3.4.5"))),
    *_studies("E_ZIP", zip_encrypted=packed(rewrite(encrypt))),
    *_studies("E_TOO_LARGE", zip_that_promises_much=packed(rewrite(promise_much))),
    Study("more_voxels_than_allowed", series(slices()), "E_TOO_LARGE", options=("--max-voxels", "1000")),
    *_studies("E_NO_BODY", all_air=series(slices(np.full_like(HU, -1000)))),
    *_studies("E_HU_RANGE", slope_1000=series(having(("RescaleSlope", 1000)))),
]

ODD: list[Study] = [
    *_studies(
        None,
        usual=series(slices()),
        shuffled=lambda folder: write_series(folder / "scan", slices(), shuffled=True),
        numbered_backward=series([replace(each, number=9 - each.number) for each in slices()]),
        without_preamble=without_preamble,
        directory_of_the_medium=with_file("DICOMDIR", having(("Modality", None))[0].write),
        dot_files=with_file("._1-001.dcm", b"no DICOM"),
        text_beside=with_file("README", b"DOE^JOHN\n" * 40),
        localizer_of_the_series=series(slices(), LOCALIZER),
        screen_save_beside=series(slices(), SCREEN_SAVE),
        secondary_capture_beside=series(
            slices(), beside(changes=(*PATIENT, ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7")))
        ),
        reports_and_contours_beside=series(slices(), *(beside(kind) for kind in ("SR", "SEG", "RTSTRUCT", "PR"))),
        slice_twice=series(slices(), slices()[3]),
        uids_missing=series(having(("SeriesInstanceUID", ""), ("StudyInstanceUID", ""), ("SOPInstanceUID", ""))),
        japanese_name=series(having(("SpecificCharacterSet", "ISO_IR 192"), ("PatientName", "山田^太郎"))),
        long_private_header=series(having(("ImageComments", "x" * 10000), ("TextValue", "y" * 60000))),
        rescale_of_each_slice=series(changed(slices(), 2, intercept=-2000.0)),
        rescale_of_a_fraction=series([replace(each, slope=0.5) for each in slices()]),
        signed=series(stored_signed(HU)),
        overlay_in_unused_bits=overlay_in_unused_bits,
        inverted_grey=series(having(("PhotometricInterpretation", "MONOCHROME1"))),
        derived_slices=series(slices(image_type=("DERIVED", "SECONDARY", "AXIAL"))),
        prone=series(prone()),
        normal_to_the_feet=series(head_first()),
        positions_rounded=series(moved(2, 0, 0, 0.02)),
        enhanced=enhanced(found=slices()[::-1]),
        zip_with_names_that_lead_out=packed(escaping_names),
        zip_with_a_comment=packed(rewrite(lambda content: content.__setitem__(slice(-2, None), b"\x03\0DOE"))),
    ),
    *_studies(None, "W_SHEAR", gantry_tilted=series(tilted(15)), gantry_tilted_the_other_way=series(tilted(-12))),
    Study(
        "padding_of_minus_2000",
        series(stored_signed(padded(-2000), ("PixelPaddingValue", -2000))),
        None,
        frozenset({"W_PADDING"}),
        has_same_mask=False,
    ),
    Study(
        "padding_of_3000_written_unsigned",
        series(stored_signed(padded(3500), ("PixelPaddingValue", 3500))),
        None,
        frozenset({"W_PADDING"}),
        has_same_mask=False,
    ),
    Study("water_declared_as_padding", series(stored_signed(HU, ("PixelPaddingValue", 0)))),
    *_studies(
        None, "W_SLOPE", slope_minus_1=series([replace(each, slope=-1.0, intercept=3071.0) for each in slices()])
    ),
    *_studies(None, "W_THICK", slices_12_mm_apart=series(slices(spacing=(12, 0.8, 0.7)))),
    *_studies(None, "W_NOT_HU", hu_and_1024=series(slices(HU + 1024))),
    Study("hu_and_1024_with_offset", series(slices(HU + 1024)), options=("--hu-offset", "-1024")),
    Study("series_by_number", series(slices(), *slices(HU[:4], **OTHER_SERIES)), options=("--series", "3")),
    Study("series_by_uid", series(slices(), *slices(HU[:4], **OTHER_SERIES)), options=("--series", "1.2.3")),
    *_studies(None, "W_TOO_SMALL", small=series(slices(ct(0, (4, 20, 24))))),
]
ODD = [replace(study, has_same_mask=False) if study.name in {"hu_and_1024", "small"} else study for study in ODD]

every_broken_study = pytest.mark.parametrize("study", BROKEN, ids=lambda study: study.name)
every_odd_study = pytest.mark.parametrize("study", ODD, ids=lambda study: study.name)
