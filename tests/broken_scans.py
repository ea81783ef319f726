"""A corpus of broken and odd scan files, each with what has to become of it.

All of them are made from one small CT by changing what its name says. `BROKEN` are refused with a code; `ODD` are
segmented, with the warnings named and no others, on their own grid.
"""

import bz2
import gzip
import lzma
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.volume_files import LPS_AFFINE, ORIENTATIONS, SHEAR, Array, patched, rotation

SHAPE = (6, 40, 48)
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ScanFile:
    """A file, and what the command line has to make of it."""

    name: str
    content: bytes | Callable[[Path], None]
    """The bytes, or what makes the file where it is no plain one."""
    code: str | None = None
    """Why it is refused; None where it is segmented."""
    warnings: frozenset[str] = frozenset()
    """What is doubtful about it where it is segmented."""
    file_name: str = "scan.nii.gz"
    options: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        path = folder / self.file_name
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)
        return path


def ct(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Array:
    """HU `[z, row, col]`: a body of soft tissue in air, with a piece of organ."""
    random = np.random.default_rng(seed)
    _, row, col = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij", sparse=True)
    hu = np.where(row**2 + col**2 < 0.7, random.normal(0, 40, shape), random.normal(-1000, 10, shape))
    hu[(np.abs(row) < 0.2) & (np.abs(col + 0.2) < 0.2) & (hu > -500)] = 120
    return np.rint(hu).clip(-1024, 3071).astype(np.int16)


HU = ct()


def scan(
    array: Array = HU,
    affine: Array = LPS_AFFINE,
    *,
    kind: type = nib.Nifti1Image,
    endianness: str = "<",
    scaling: tuple[float, float] = (1, 0),
    units: str = "mm",
    codes: tuple[int, int] = (1, 1),
) -> bytes:
    """The plain file of an image `[z, row, col]` or with further axes in front; its qform is its sform."""
    header = kind.header_class(endianness=endianness)
    header.set_data_shape(array.T.shape)
    header.set_data_dtype(array.dtype)
    header.set_data_offset(header.single_vox_offset)
    header.set_xyzt_units(units)
    header.set_qform(affine, code=codes[0], strip_shears=True)
    header.set_sform(affine, code=codes[1])
    if codes[0] == 0:
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header["scl_slope"], header["scl_inter"] = scaling
    stored = array.astype(array.dtype.newbyteorder(endianness))
    return header.binaryblock + bytes(4) + stored.tobytes()


GOOD = scan()
QFORM_ONLY = scan(codes=(1, 0))
SFORM_ONLY = scan(codes=(0, 1))
NOWHERE = scan(codes=(0, 0))
NIFTI2 = scan(kind=nib.Nifti2Image)
ZIPPED = gzip.compress(GOOD, 6, mtime=0)
STORED = gzip.compress(GOOD, 0, mtime=0)
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>" * 20
NOISE = np.random.default_rng(1).integers(0, 256, 4096, dtype=np.uint8).tobytes()


def header(offset: int, values: list[float], dtype: str, content: bytes = GOOD) -> bytes:
    """A compressed scan with other numbers in its header."""
    return gzip.compress(patched(content, offset, values, dtype), 1, mtime=0)


def voxels(array: Array, **options: object) -> bytes:
    """A compressed scan with other voxels."""
    return gzip.compress(scan(array, **options), 1, mtime=0)  # type: ignore[arg-type]


def with_odd_voxels(share: float, value: float) -> bytes:
    array = HU.astype(np.float32)
    array.reshape(-1)[: int(share * array.size)] = value
    return voxels(array)


def with_holes(value: float) -> bytes:
    array = HU.astype(np.float32)
    array.reshape(-1)[::40] = value
    return voxels(array)


def outside_the_field_of_view(value: float) -> Array:
    """The CT with something else beyond the ellipse that fits into its slices."""
    row, col = (np.linspace(-1, 1, side) for side in SHAPE[1:])
    return np.where(row[:, None] ** 2 + col**2 < 1, HU, value).astype(np.float32)


def padded_below_air(array: Array, value: float, dtype: str = "i4") -> Array:
    """A scan with a fifth of each slice, on one side, of a number that no scan has."""
    changed = array.astype(dtype)
    changed[:, :, -array.shape[2] // 5 :] = value
    return changed


def resonance_around_0() -> Array:
    """Bright tissue, and a background of noise on both sides of 0."""
    return np.where(HU > -500, HU + 600, HU % 80 - 40).astype(np.int16)


def body_cut_out() -> Array:
    """A body with some gas in it, and padding in place of all that is around it."""
    array = np.where(HU > -500, HU, -99999.0)
    array[2:4, 18:22, 22:26] = -950
    return array.astype(np.int32)


def nan_beside_padding() -> Array:
    array = padded_below_air(HU, -99999, "f4")
    array[:, :4] = np.nan
    return array


def with_metal(value: int, count: int) -> Array:
    array = HU.astype(np.int64)
    array[0, 20, :count] = value
    return array


def with_extension(size_told: int) -> bytes:
    """An extension of 16 bytes that says it has another size."""
    moved = patched(patched(GOOD, 108, [368], "<f4"), 348, [1], "u1")
    return moved[:352] + struct.pack("<ii8s", size_told, 6, b"Jane Doe") + moved[352:]


def full_gzip_header(content: bytes) -> bytes:
    """gzip with all its optional fields: extra, name, comment and checksum of the header."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    start = b"\x1f\x8b\x08\x1e" + bytes(6) + struct.pack("<H", 4) + b"abcd" + b"Jane_Doe.nii\0" + b"a comment\0"
    start += struct.pack("<H", zlib.crc32(start) & 0xFFFF)
    end = struct.pack("<II", zlib.crc32(content), len(content))
    return start + compressor.compress(content) + compressor.flush() + end


def zeros_after(count: int) -> bytes:
    return gzip.compress(GOOD + bytes(count), 9, mtime=0)


def members(count: int) -> bytes:
    step = len(GOOD) // count + 1
    return b"".join(gzip.compress(GOOD[first : first + step]) for first in range(0, len(GOOD), step))


def rescaled(low: float, high: float, dtype: str) -> Array:
    """The CT windowed to -150 to 250 HU and put between two other numbers."""
    scaled = (np.clip(HU, -150, 250) + 150) / 400 * (high - low) + low
    return (scaled if "f" in dtype else np.rint(scaled)).astype(dtype)


def empty_table() -> Array:
    """Air with some noise, and in it the edge of a table."""
    array = HU % 20 - 1000
    array[:, -1, :10] = 0
    return array


def magnetic_resonance() -> Array:
    """Bright tissue, and a background that some correction has made negative."""
    return np.where(HU > -500, HU + 600, -300).astype(np.int16)


def _files(code: str | None, **contents: bytes | Callable[[Path], None]) -> list[ScanFile]:
    return [ScanFile(name, content, code) for name, content in contents.items()]


def _named(file_name: str, code: str, **contents: bytes) -> list[ScanFile]:
    return [ScanFile(name, content, code, file_name=file_name) for name, content in contents.items()]


def _told(name: str, content: bytes, *options: str, code: str | None = None, warnings: str = "") -> ScanFile:
    return ScanFile(name, content, code, frozenset(warnings.split()), options=options)


def _warned(warnings: str, **contents: bytes) -> list[ScanFile]:
    return [ScanFile(name, content, None, frozenset(warnings.split())) for name, content in contents.items()]


BROKEN: list[ScanFile] = [
    # What is no file of voxels at all
    *_files("E_EMPTY", empty=b"", gzip_of_nothing=gzip.compress(b"")),
    *_files("E_NOT_FOUND", missing=lambda path: None, dangling_link=lambda path: path.symlink_to("nowhere.nii.gz")),
    *_files("E_NOT_A_FILE", folder=lambda path: path.mkdir(), pipe=os.mkfifo),
    *_named(
        "scan.nii",
        "E_NOT_NIFTI",
        web_page=HTML,
        text=b"one, two, three\n" * 30,
        json=b'{"a": 1}',
        zeros=bytes(4096),
        noise=NOISE,
        one_byte=b"\x5c",
        dicom=bytes(128) + b"DICM" + NOISE,
        nrrd=b"NRRD0004\n" + NOISE,
        zip_archive=b"PK\x03\x04" + NOISE,
        picture=b"\x89PNG\r\n\x1a\n" + NOISE,
        git_lfs_pointer=b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ),
    *_files("E_NOT_NIFTI", gzip_of_a_web_page=gzip.compress(HTML), gzip_of_gzip=gzip.compress(ZIPPED)),
    *_files(
        "E_NOT_GZIP",
        web_page_named_gz=HTML,
        bzip2_named_gz=bz2.compress(GOOD),
        xz_named_gz=lzma.compress(GOOD),
        noise_named_gz=b"\0" + NOISE,
    ),
    # The header
    *_files(
        "E_MAGIC",
        magic_wrong=header(344, [ord("n"), ord("+"), ord("9")], "u1"),
        magic_missing=header(344, [0, 0, 0, 0], "u1"),
        magic_of_a_pair=header(345, [ord("i")], "u1"),
        header_size_0=header(0, [0], "<i4"),
        nifti2_copied_as_text=header(8, [10, 10, 26, 10], "u1", NIFTI2),
        nifti2_header_size_0=header(0, [0], "<i4", NIFTI2),
    ),
    *_files(
        "E_DIMS",
        no_axes=header(40, [0], "<i2"),
        eight_axes=header(40, [8], "<i2"),
        minus_one_axes=header(40, [-1], "<i2"),
        x_of_length_0=header(42, [0], "<i2"),
        z_of_length_0=header(46, [0], "<i2"),
        negative_length=header(44, [-40], "<i2"),
        nifti2_negative_length=header(24, [-48], "<i8", NIFTI2),
    ),
    *_files(
        "E_NDIM",
        one_axis=voxels(HU[0, 0]),
        two_axes=voxels(HU[0]),
        two_volumes=voxels(np.stack([HU, HU])),
        five_axes=voxels(np.stack([HU, HU])[:, None]),
        two_long_axes_more=voxels(np.stack([HU, HU] * 2).reshape(2, 2, *SHAPE)),
    ),
    _told("volume_that_is_not_there", voxels(np.stack([HU, HU])), "--volume", "2", code="E_NDIM"),
    _told("volume_of_a_3d_image", ZIPPED, "--volume", "1", code="E_NDIM"),
    *_files(
        "E_DTYPE",
        complex_numbers=voxels(HU.astype(np.complex64)),
        colours=header(70, [128, 24], "<i2"),
        colours_and_opacity=header(70, [2304, 32], "<i2"),
        type_0=header(70, [0], "<i2"),
        single_bits=header(70, [1], "<i2"),
        type_999=header(70, [999], "<i2"),
        type_negative=header(70, [-4], "<i2"),
        float_of_128_bits=header(70, [1536], "<i2"),
    ),
    *_files(
        "E_OFFSET",
        offset_0=header(108, [0], "<f4"),
        offset_100=header(108, [100], "<f4"),
        offset_348=header(108, [348], "<f4"),
        offset_353=header(108, [353], "<f4"),
        offset_of_half_a_byte=header(108, [352.5], "<f4"),
        offset_negative=header(108, [-352], "<f4"),
        offset_1e9=header(108, [1e9], "<f4"),
        offset_nan=header(108, [np.nan], "<f4"),
        offset_infinite=header(108, [np.inf], "<f4"),
        nifti2_offset_huge=header(168, [2**62], "<i8", NIFTI2),
    ),
    *_files("E_SLOPE", intercept_infinite=header(116, [np.inf], "<f4"), intercept_nan=header(116, [np.nan], "<f4")),
    *_files(
        "E_HU_RANGE",
        slope_1e30=header(112, [1e30], "<f4"),
        intercept_1e30=header(116, [1e30], "<f4"),
        integers_too_large=voxels(HU.astype(np.int32) * 1000),
        unsigned_too_large=voxels((HU.astype(np.int32) + 40000).astype(np.uint16)),
        reals_too_large=voxels(HU.astype(np.float64) * 1e30),
        only_air_too_low=voxels(HU.astype(np.int32) * 40),
        nothing_but_padding=voxels(np.where(np.arange(HU.size).reshape(SHAPE) < 50, HU, -99999.0).astype(np.int32)),
        holes_far_below_air=with_holes(-99999),
        magnetic_resonance_with_padding=voxels(padded_below_air(magnetic_resonance(), -99999)),
        resonance_around_0_with_padding=voxels(padded_below_air(resonance_around_0(), -99999)),
        hu_and_1024_with_padding=voxels(padded_below_air(HU + 1024, -99999)),
        bytes_with_padding_at_the_top=voxels(padded_below_air(HU, 99999)),
        wrapped_unsigned=voxels(HU.astype(np.uint16)),
    ),
    *_files(
        "E_SPACING",
        spacing_0=header(80, [0], "<f4", QFORM_ONLY),
        spacing_nan=header(84, [np.nan], "<f4", QFORM_ONLY),
        spacing_infinite=header(88, [np.inf], "<f4", QFORM_ONLY),
    ),
    *_files("E_UNITS", metres_that_are_mm=header(123, [1], "u1"), micrometres_that_are_mm=header(123, [3], "u1")),
    *_files(
        "E_AFFINE",
        sform_0=header(280, [0] * 12, "<f4"),
        sform_singular=header(280, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "<f4"),
        sform_nan=header(280, [np.nan], "<f4"),
        sform_1e30=header(280, [1e30], "<f4"),
        sform_of_1e_30_mm=header(280, [1e-30], "<f4"),
        quaternion_too_long=header(256, [0.9, 0.9, 0.9], "<f4", QFORM_ONLY),
        quaternion_nan=header(256, [np.nan], "<f4", QFORM_ONLY),
        qform_far_away=header(268, [1e20], "<f4", QFORM_ONLY),
    ),
    *_files("E_ORIENT", no_orientation=gzip.compress(NOWHERE), unknown_code=header(254, [200], "<i2")),
    _told("forms_20_mm_apart_strictly", header(268, [51], "<f4"), "--strict", code="E_FORM_DISAGREE"),
    # What the header promises and the file does not hold
    *_files(
        "E_SIZE_LIE",
        four_gigabytes_promised=header(42, [2000, 2000, 500], "<i2"),
        just_more_than_gzip_can_hold=header(42, [400, 400, 300], "<i2"),
    ),
    *_files(
        "E_TOO_LARGE",
        all_sides_32767=header(42, [32767] * 3, "<i2"),
        nifti2_sides_of_2_to_the_40=header(24, [2**40] * 3, "<i8", NIFTI2),
        nifti2_overflowing_sides=header(24, [2**62, 2**62, 4], "<i8", NIFTI2),
    ),
    _told("more_voxels_than_allowed", ZIPPED, "--max-voxels", "1000", code="E_TOO_LARGE"),
    *_named(
        "scan.nii",
        "E_TRUNCATED",
        half_a_plain_file=GOOD[: len(GOOD) // 2],
        plain_without_the_last_byte=GOOD[:-1],
        header_alone=GOOD[:352],
        half_a_plain_header=GOOD[:100],
        five_bytes=GOOD[:5],
        half_a_nifti2_header=NIFTI2[:400],
    ),
    *_files(
        "E_TRUNCATED",
        half_a_gzip=ZIPPED[: len(ZIPPED) // 2],
        gzip_without_trailer=ZIPPED[:-8],
        gzip_without_half_its_trailer=ZIPPED[:-4],
        gzip_of_half_a_file=gzip.compress(GOOD[: len(GOOD) // 2]),
        gzip_of_half_a_header=gzip.compress(GOOD[:100]),
        start_of_a_gzip_header=ZIPPED[:5],
        last_member_missing=gzip.compress(GOOD[:9000]),
        last_member_cut=members(3)[:-30],
    ),
    *_files(
        "E_CORRUPT",
        # Without compression only the checksum tells that a voxel has changed.
        flipped_bit=patched(STORED, 9000, [STORED[9000] ^ 4], "u1"),
        wrong_checksum=ZIPPED[:-8] + bytes(4) + ZIPPED[-4:],
        wrong_length_in_trailer=ZIPPED[:-4] + bytes(4),
        damaged_block=patched(ZIPPED, 10, [0xFF], "u1"),
        damaged_middle=patched(ZIPPED, len(ZIPPED) // 2, [0] * 64, "u1"),
        unknown_compression=patched(ZIPPED, 2, [7], "u1"),
        second_member_damaged=patched(members(2), len(members(2)) - 6, [0], "u1"),
    ),
    *_files(
        "E_TRAILING",
        bomb_behind_the_image=zeros_after(8 * MEBIBYTE),
        shape_too_small=header(42, [48, 40, 6], "<i2", scan(ct(0, (90, 100, 100)))),
    ),
    _told("plain_with_two_mebibytes_more", GOOD + bytes(2 * MEBIBYTE), code="E_TRAILING"),
    # The content
    *_files(
        "E_NONFINITE",
        two_in_a_hundred_nan=with_holes(np.nan),
        all_nan=with_odd_voxels(1, np.nan),
        two_in_a_hundred_infinite=with_holes(np.inf),
        scaled_beyond_all_numbers=voxels(HU + 1e300, scaling=(1e30, 0)),
    ),
    *_files(
        "E_NO_BODY",
        all_air=voxels(np.where(HU > -2000, -1000, HU).astype(np.int16)),
        air_with_noise=voxels((HU % 20 - 1000).astype(np.int16)),
        empty_table=voxels(empty_table()),
        all_0=voxels(np.zeros_like(HU)),
        all_40=voxels(np.full_like(HU, 40)),
    ),
    *_files(
        "E_NOT_HU",
        windowed_to_bytes=voxels(rescaled(0, 255, "u1")),
        windowed_to_255_as_int16=voxels(rescaled(0, 255, "i2")),
        normalised_to_1=voxels(rescaled(0, 1, "f4")),
        normalised_around_0=voxels(rescaled(-1, 1, "f4")),
        labels_in_place_of_a_scan=voxels((HU > 100).astype(np.uint8)),
    ),
]

ODD: list[ScanFile] = [
    # Every way to store a scan
    *_files(
        None,
        usual=ZIPPED,
        int8=voxels((HU // 8).astype(np.int8), scaling=(8, 0)),
        uint8=voxels(((HU + 1024) // 16).astype(np.uint8), scaling=(16, -1024)),
        uint16_with_intercept=voxels((HU + 1024).astype(np.uint16), scaling=(1, -1024)),
        int32=voxels(HU.astype(np.int32)),
        uint32_with_intercept=voxels((HU + 1024).astype(np.uint32), scaling=(1, -1024)),
        int64=voxels(HU.astype(np.int64)),
        uint64_with_intercept=voxels((HU + 1024).astype(np.uint64), scaling=(1, -1024)),
        float32=voxels(HU.astype(np.float32)),
        float64=voxels(HU.astype(np.float64)),
        big_endian=voxels(HU, endianness=">"),
        big_endian_float=voxels(HU.astype(np.float32), endianness=">"),
        nifti2=gzip.compress(NIFTI2),
        nifti2_big_endian=voxels(HU, kind=nib.Nifti2Image, endianness=">"),
        slope_0=header(112, [0], "<f4"),
        slope_1_intercept_1024=voxels((HU + 1024).astype(np.int16), scaling=(1, -1024)),
        slope_of_a_fraction=voxels((HU * 4).astype(np.int16), scaling=(0.25, 0)),
        metres=voxels(HU, affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ LPS_AFFINE, units="meter"),
        micrometres=voxels(HU, affine=np.diag([1e3, 1e3, 1e3, 1]) @ LPS_AFFINE, units="micron"),
        qform_alone=gzip.compress(QFORM_ONLY),
        sform_alone=gzip.compress(SFORM_ONLY),
        qform_left_handed=voxels(HU[::-1], affine=LPS_AFFINE @ np.diag([1, 1, -1, 1]), codes=(1, 0)),
        oblique=voxels(HU, affine=rotation(20, 15) @ LPS_AFFINE),
        one_slice=voxels(HU[:1]),
        odd_sides=voxels(ct(0, (3, 41, 47))),
        extension=gzip.compress(with_extension(16)),
        extension_of_2_gigabytes=gzip.compress(with_extension(2**31 - 16)),
        extension_of_negative_size=gzip.compress(with_extension(-16)),
        unused_sides_0=header(48, [0] * 4, "<i2"),
    ),
    *[
        ScanFile(
            f"stored_as_{''.join(nib.orientations.ornt2axcodes(orientation))}",
            voxels(
                nib.orientations.apply_orientation(HU.T, orientation).T,
                affine=LPS_AFFINE @ nib.orientations.inv_ornt_aff(orientation, SHAPE[::-1]),
            ),
        )
        for orientation in (o.astype(float) for o in ORIENTATIONS[::7])
    ],
    # Every way to compress it
    *_files(
        None,
        stored_without_compression=STORED,
        three_members=members(3),
        members_as_of_bgzip=members(40) + gzip.compress(b""),
        gzip_with_all_optional_fields=full_gzip_header(GOOD),
        zeros_behind_the_gzip=ZIPPED + bytes(512),
    ),
    *_warned("W_EXT_MISMATCH", plain_named_gz=GOOD),
    ScanFile("gzip_named_nii", ZIPPED, None, frozenset({"W_EXT_MISMATCH"}), "scan.nii"),
    *_warned(
        "W_TRAILING",
        garbage_behind_the_gzip=ZIPPED + b"some garbage",
        one_byte_behind_the_gzip=ZIPPED + b"\x1f",
        zeros_behind_the_image=zeros_after(100),
    ),
    ScanFile("plain_with_10_bytes_more", GOOD + bytes(10), None, frozenset({"W_TRAILING"}), "scan.nii"),
    # The header
    *_warned(
        "W_SQUEEZED",
        one_volume_of_four_axes=voxels(HU[None]),
        one_volume_of_seven_axes=voxels(HU[None, None, None, None]),
    ),
    _told("second_volume", voxels(np.stack([HU // 2, HU])), "--volume", "1"),
    _told("first_volume_of_five_axes", voxels(np.stack([HU, HU // 2])[:, None]), "--volume", "0"),
    _told("volume_0_of_a_3d_image", ZIPPED, "--volume", "0"),
    *_warned("W_BITPIX", size_of_voxels_wrong=header(72, [32], "<i2")),
    *_warned("W_OFFSET", offset_354=gzip.compress(patched(GOOD, 108, [354], "<f4")[:352] + bytes(2) + GOOD[352:])),
    *_warned(
        "W_SLOPE",
        slope_nan=header(112, [np.nan], "<f4"),
        slope_infinite=header(112, [np.inf], "<f4"),
        slope_0_with_an_intercept=header(112, [0, -1024], "<f4"),
        slope_minus_1=voxels(-HU, scaling=(-1, 0)),
        slope_and_intercept_nan=header(112, [np.nan, np.nan], "<f4"),
    ),
    *_warned(
        "W_SPACING",
        spacing_negative=header(80, [-0.7], "<f4", QFORM_ONLY),
        spacing_ten_times_that_of_the_sform=header(80, [7, 8, 25], "<f4", SFORM_ONLY),
        sform_of_half_the_spacing=header(280, [-0.35], "<f4", SFORM_ONLY),
        slices_a_nanometre_apart=header(88, [1e-6], "<f4", QFORM_ONLY),
    ),
    *_warned(
        "W_QFAC",
        handedness_3=header(76, [3], "<f4", QFORM_ONLY),
        handedness_minus_3=header(76, [-3], "<f4", QFORM_ONLY),
        handedness_minus_infinite=header(76, [-np.inf], "<f4", QFORM_ONLY),
        handedness_nan=header(76, [np.nan], "<f4", QFORM_ONLY),
    ),
    *_files(
        None,
        handedness_0=header(76, [0], "<f4", QFORM_ONLY),
        handedness_minus_3_with_an_sform_that_agrees=header(76, [-3], "<f4"),
    ),
    *_warned(
        "W_SPACING W_FORM_DISAGREE",
        spacing_0_with_sform=header(80, [0], "<f4"),
        spacing_nan_with_sform=header(88, [np.nan], "<f4"),
    ),
    *_warned("W_UNITS", no_unit=header(123, [0], "u1"), unknown_unit=header(123, [5], "u1")),
    *_warned("W_SHEAR", sheared=gzip.compress(scan(affine=SHEAR @ LPS_AFFINE, codes=(0, 1)))),
    *_warned(
        "W_FORM_DISAGREE",
        forms_1_mm_apart=header(268, [32], "<f4"),
        forms_20_mm_apart=header(268, [51], "<f4"),
        handedness_minus_3_with_an_sform_that_disagrees=header(
            76, [-3], "<f4", scan(affine=LPS_AFFINE @ np.diag([1, 1, -1, 1]))
        ),
        bad_quaternion_beside_an_sform=header(256, [0.9, 0.9, 0.9], "<f4"),
    ),
    _told("forms_1_mm_apart_strictly", header(268, [32], "<f4"), "--strict", warnings="W_FORM_DISAGREE"),
    _told("orientation_assumed", gzip.compress(NOWHERE), "--assume-orientation", "LPS", warnings="W_ORIENT"),
    _told("orientation_assumed_without_need", ZIPPED, "--assume-orientation", "RAI"),
    # The content
    *_warned(
        "W_NONFINITE",
        one_in_200_nan=with_odd_voxels(0.005, np.nan),
        one_in_200_infinite=with_odd_voxels(0.005, -np.inf),
        nan_outside_the_field_of_view=voxels(outside_the_field_of_view(np.nan)),
        one_of_six_slices_nan=with_odd_voxels(1 / 6, np.nan),
    ),
    *_warned(
        "W_PADDING",
        padding_of_minus_99999=voxels(padded_below_air(HU, -99999)),
        padding_of_minus_99999_as_real=voxels(padded_below_air(HU, -99999, "f4")),
        padding_of_minus_1e30=voxels(padded_below_air(HU, -1e30, "f4")),
        padding_of_int16_below_an_intercept=voxels(padded_below_air(HU + 1024, -32768, "i2"), scaling=(1, -1024)),
        padding_around_a_body=voxels(body_cut_out()),
        padding_outside_the_field_of_view=voxels(outside_the_field_of_view(-99999.0)),
    ),
    *_warned("W_PADDING W_NONFINITE", padding_and_nan=voxels(nan_beside_padding())),
    _told(
        "padding_with_offset",
        voxels(padded_below_air(HU + 1024, -99999)),
        "--hu-offset",
        "-1024",
        warnings="W_PADDING",
    ),
    _told(
        "padding_that_is_vouched_for",
        voxels(padded_below_air(magnetic_resonance(), -99999)),
        "--assume-hu",
        warnings="W_PADDING",
    ),
    *_files(
        None,
        padding_of_minus_2000=voxels(padded_below_air(HU, -2000, "i2")),
        padding_of_minus_3024=voxels(padded_below_air(HU, -3024, "f4")),
        padding_of_minus_32768=voxels(padded_below_air(HU, -32768, "i2")),
    ),
    *_warned(
        "W_CLIPPED",
        one_voxel_at_40000=voxels(with_metal(40000, 1).astype(np.int32)),
        one_unsigned_voxel_at_60000=voxels((with_metal(58976, 1) + 1024).astype(np.uint16), scaling=(1, -1024)),
        metal_at_50000=voxels(with_metal(50000, 40).astype(np.float32)),
    ),
    *_warned(
        "W_NOT_HU",
        hu_and_1024=voxels((HU + 1024).astype(np.uint16)),
        windowed_to_4000=voxels(rescaled(0, 4000, "i2")),
        standardised=voxels(rescaled(-2, 4, "f4")),
    ),
    _told("hu_and_1024_with_offset", voxels((HU + 1024).astype(np.uint16)), "--hu-offset", "-1024"),
    _told("windowed_but_insisted_on", voxels(rescaled(0, 255, "u1")), "--assume-hu"),
    *_warned("W_NOT_CT", magnetic_resonance=voxels(magnetic_resonance())),
    *_warned("W_THICK", slices_12_mm_apart=voxels(HU, affine=np.diag([-0.7, -0.8, 12, 1]))),
    *_warned(
        "W_SPACING",
        pixels_of_a_tenth_mm=voxels(HU, affine=np.diag([-0.1, -0.1, 2, 1])),
        pixels_of_70_cm=voxels(HU, affine=np.diag([-700, -800, 2.5, 1])),
    ),
    *_warned("W_TOO_SMALL", five_by_six_pixels=voxels(ct(0, (4, 5, 6)))),
]

every_broken_scan = pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.name)
every_odd_scan = pytest.mark.parametrize("file", ODD, ids=lambda file: file.name)
