"""Scans whose headers are damaged at random: each is refused with a code, or gives a mask of its own geometry.

Nothing else may happen: no other error, no warning of numpy's, and no more memory than the file can hold.
"""

import re
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.errors import InputError
from cascade_rt.nifti.header import GEOMETRY_FIELDS, header_length
from cascade_rt.nifti.options import ScanOptions
from cascade_rt.volume import Volume, read_volume, write_mask
from tests.broken_scans import GOOD, NIFTI2, NOWHERE, QFORM_ONLY, scan

ORIGINALS = (GOOD, QFORM_ONLY, NOWHERE, NIFTI2, scan(endianness=">"), scan(scaling=(2.0, -1024.0)))
NASTY = {
    "<i2": (0, 1, -1, 2, 5, 255, 32767, -32768),
    "<f4": (0.0, -1.0, 1e-30, 1e30, np.nan, np.inf, -np.inf, 352.0, 1000.0),
    "<i8": (0, -1, 1 << 40, (1 << 63) - 1),
}
WHOLLY_TRUSTED = ScanOptions(assume_hu=True, assume_orientation="LPS", volume=0)
MOST_MEMORY = 4 << 20


def mutant(seed: int) -> bytes:
    """One of the originals with one to three changes in its header: a byte, a bit, a number, or a hole."""
    random = np.random.default_rng(seed)
    content = bytearray(ORIGINALS[seed % len(ORIGINALS)])
    length = header_length(bytes(content[:8])) + 4
    for _ in range(random.integers(1, 4)):
        kind = random.integers(4)
        if kind == 0:
            content[random.integers(length)] = random.integers(256)
        elif kind == 1:
            content[random.integers(length)] ^= 1 << int(random.integers(8))
        elif kind == 2:
            dtype = random.choice(list(NASTY))
            number = np.array(random.choice(NASTY[dtype]), dtype=dtype).tobytes()
            start = int(random.integers(length // len(number))) * len(number)
            content[start : start + len(number)] = number
        else:
            start = int(random.integers(length))
            content[start : start + 8] = bytes(8)
    return bytes(content)


def header_of(content: bytes) -> Any:
    """The header of a plain file as it is, nothing mended."""
    kind = nib.Nifti2Header if header_length(content[:8]) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    return kind(content[: kind.sizeof_hdr], "<" if content[0] else ">", check=False)


def read_or_refuse(path: Path, options: ScanOptions) -> Volume | InputError:
    try:
        return read_volume(path, options)
    except InputError as error:
        return error


def check(content: bytes, folder: Path, options: ScanOptions) -> str:
    """Read a scan and write a mask for it; returns the code of its refusal, or nothing."""
    path, result = folder / "scan.nii", folder / "mask.nii"
    path.write_bytes(content)
    volume = read_or_refuse(path, options)
    if isinstance(volume, InputError):
        assert re.fullmatch(r"E_[A-Z0-9_]+", volume.code)
        assert str(volume).startswith(f"{path}: ")
        return volume.code
    assert volume.voxels.size * 2 <= 8 * len(content)
    assert np.isfinite(volume.affine).all()
    write_mask(np.zeros(volume.voxels.shape, dtype=np.uint8), volume, result, overwrite=True)
    given, written = header_of(content), header_of(result.read_bytes())
    assert written["dim"][1:4].tolist() == given["dim"][1:4].tolist()
    for field in GEOMETRY_FIELDS:
        np.testing.assert_array_equal(written[field], given[field])
    return ""


def check_all(seeds: range, folder: Path) -> dict[str, int]:
    """How often each code came, of mutants taken as they are and of mutants that the user vouches for."""
    found: dict[str, int] = {}
    tracemalloc.start()
    try:
        for seed in seeds:
            options = WHOLLY_TRUSTED if seed // len(ORIGINALS) % 2 else ScanOptions()
            try:
                code = check(mutant(seed), folder, options)
            except Exception as error:
                error.add_note(f"mutant {seed}")
                raise
            found[code] = found.get(code, 0) + 1
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    return found


@pytest.mark.parametrize("start", range(0, 10_000, 1000))
def test_a_damaged_header_is_refused_with_a_code_or_its_mask_has_its_own_geometry(start: int, tmp_path: Path) -> None:
    found = check_all(range(start, start + 1000), tmp_path)
    assert found[""] > 100, "mutants that are still scans"
    assert len(found) > 5, "mutants that are refused for different reasons"


@pytest.mark.slow
@pytest.mark.parametrize("start", range(10_000, 200_000, 10_000))
def test_many_more_damaged_headers_are_refused_or_have_masks_of_their_own_geometry(start: int, tmp_path: Path) -> None:
    check_all(range(start, start + 10_000), tmp_path)
