"""Scans whose headers are damaged at random: each is refused with a code, or gives a mask of its own geometry.

Nothing else may happen: no other error, no warning of numpy's, and no more memory than the file can hold. What is read
is what nibabel reads, and where a header says two things about its geometry, there is a warning.
"""

import ctypes
import re
import resource
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.errors import InputError
from cascade_rt.scans.nifti.header import header_length
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.nifti.placement import GEOMETRY_FIELDS
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import Volume, write_mask
from tests.broken_scans import GOOD, NIFTI2, NOWHERE, QFORM_ONLY, SFORM_ONLY, scan
from tests.volume_files import assert_placed_alike

ORIGINALS = (GOOD, QFORM_ONLY, SFORM_ONLY, NOWHERE, NIFTI2, scan(endianness=">"), scan(scaling=(2.0, -1024.0)))
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


def contradiction(seed: int) -> bytes:
    """One of the originals of which one or two fields about its geometry say something else, as programs write them."""
    random = np.random.default_rng(seed)
    content = ORIGINALS[seed % len(ORIGINALS)]
    header = header_of(content)
    for _ in range(random.integers(1, 3)):
        name = random.choice(GEOMETRY_FIELDS)
        factor = random.choice([0.0, -1.0, 0.1, 0.5, 0.9, 1.2, 2.0, 10.0, 1000.0, 1e-6, np.nan])
        if name in {"qform_code", "sform_code", "xyzt_units"}:
            header[name] = random.integers(5)
        elif header[name].ndim:
            index = random.integers(4)
            header[name][index] *= factor
        else:
            header[name] = header[name] * factor if header[name] else factor
    return bytes(header.binaryblock) + content[header.sizeof_hdr :]


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
    assert_placed_alike(header_of(result.read_bytes()), header_of(content))
    return ""


def check_all(seeds: range, folder: Path) -> dict[str, int]:
    """How often each code came, of mutants taken as they are and of mutants that the user vouches for."""
    found: dict[str, int] = {}
    for seed in seeds:
        options = WHOLLY_TRUSTED if seed // len(ORIGINALS) % 2 else ScanOptions()
        try:
            code = check(mutant(seed), folder, options)
        except Exception as error:
            error.add_note(f"mutant {seed}")
            raise
        found[code] = found.get(code, 0) + 1
    return found


def allow_nothing_more() -> None:
    """From here on, asking the system for more than `MOST_MEMORY`, used or not, is an error, and so is a warning."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as folder:
        check(GOOD, Path(folder), ScanOptions())  # what is imported late takes memory too
    ctypes.CDLL(None).malloc_trim(0)  # what was freed could be taken again without asking
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@pytest.fixture(scope="module")
def small_process() -> Iterator[ProcessPoolExecutor]:
    """A process of its own, for what other tests have freed in this one would be there to take."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=allow_nothing_more) as process:
        yield process


@pytest.mark.parametrize("start", range(0, 10_000, 1000))
def test_a_damaged_header_is_refused_or_its_mask_keeps_its_geometry(
    start: int, small_process: ProcessPoolExecutor, tmp_path: Path
) -> None:
    found = small_process.submit(check_all, range(start, start + 1000), tmp_path).result()
    assert found[""] > 100, "mutants that are still scans"
    assert len(found) > 5, "mutants that are refused for different reasons"


@pytest.mark.slow
@pytest.mark.parametrize("start", range(10_000, 200_000, 10_000))
def test_ten_thousand_damaged_headers_are_refused_or_keep_their_geometry(
    start: int, small_process: ProcessPoolExecutor, tmp_path: Path
) -> None:
    small_process.submit(check_all, range(start, start + 10_000), tmp_path).result()


# What is read, judged by another reader


def check_against_nibabel(content: bytes, volume: Volume, options: ScanOptions) -> None:
    """Where nibabel reads the file, it reads the same shape, the same affine and the same voxels."""
    kind = nib.Nifti2Image if header_length(content[:8]) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Image
    try:
        image = kind.from_bytes(content)
        with np.errstate(all="ignore"):
            stored = np.asanyarray(image.dataobj, dtype=np.float64)
    except (nib.spatialimages.HeaderDataError, OSError, ValueError, OverflowError):
        return
    values = stored.reshape(*image.shape[:3], -1)[..., options.volume or 0]
    assert values.shape == volume.grid.shape
    if image.header["sform_code"] > 0 or image.header["qform_code"] > 0:
        unit_mm = {1: 1e3, 3: 1e-3}.get(int(image.header["xyzt_units"]) & 7, 1.0)
        np.testing.assert_allclose(
            volume.grid.affine, np.diag([unit_mm] * 3 + [1]) @ image.affine, rtol=1e-5, atol=1e-4
        )
    with np.errstate(all="ignore"):
        expected = np.rint(np.where(np.isfinite(values), values, -1024).clip(-32768, 32767))
    np.testing.assert_allclose(volume.grid.from_canonical(volume.voxels), expected, atol=1)


def check_that_contradictions_are_told(header: Any, volume: Volume) -> None:
    """Two lengths of a voxel that differ by 5 % or more, or corners half a voxel apart, are never taken in silence."""
    codes = {warning.code for warning in volume.warnings}
    assert codes & {"W_UNITS"} or int(header["xyzt_units"]) & 7 in {1, 2, 3}
    spacing_mm = np.array(volume.spacing_mm)
    assert codes & {"W_SPACING", "W_THICK"} or (spacing_mm.min() > 0.1 and spacing_mm.max() < 10.5)
    if header["sform_code"] == 0:
        assert header["qform_code"] > 0 or "W_ORIENT" in codes
        return
    rows = np.array([header[name] for name in ("srow_x", "srow_y", "srow_z")], dtype=float)
    with np.errstate(all="ignore"):
        ratio = np.abs(header["pixdim"][1:4]) / np.linalg.norm(rows[:, :3], axis=0)
    if not ((ratio > 0.95) & (ratio < 1.05)).all():
        assert codes & {"W_SPACING", "W_FORM_DISAGREE"}
    if header["qform_code"] > 0 and "W_FORM_DISAGREE" not in codes:
        header["pixdim"][0] = header["pixdim"][0] or 1
        try:
            qform = header.get_qform()
        except (nib.spatialimages.HeaderDataError, ValueError):
            return  # nibabel allows quaternions of NIfTI-2 no rounding to float32
        far = np.array([*(np.array(volume.grid.shape) - 1), 1.0])
        assert np.linalg.norm(qform[:3] @ far - rows @ far) < 0.5 * np.linalg.norm(rows[:, :3], axis=0).min()


@pytest.mark.parametrize("make", [mutant, contradiction])
def test_voxels_and_geometry_are_those_of_nibabel_with_warnings(
    make: Callable[[int], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nib.imageglobals.logger, "disabled", True)
    read = 0
    for seed in range(700):
        content, options = make(seed), WHOLLY_TRUSTED if seed // len(ORIGINALS) % 2 else ScanOptions()
        (tmp_path / "scan.nii").write_bytes(content)
        volume = read_or_refuse(tmp_path / "scan.nii", options)
        if isinstance(volume, Volume):
            read += 1
            try:
                check_against_nibabel(content, volume, options)
                check_that_contradictions_are_told(header_of(content), volume)
            except AssertionError as error:
                error.add_note(f"mutant {seed}")
                raise
    assert read > 150
