"""Slices of a file can be used as they arrive; only the end of the file says whether it may be kept."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cascade_rt.errors import InputError
from cascade_rt.scans.opening import open_scan, read_volume
from tests.volume_files import ANATOMY, LPS_AFFINE, Array, in_every_orientation, nifti, oriented, patched, save

SHAPE = (23, 64, 64)
"""So many slices that the file takes several reads."""
HU = np.random.default_rng(3).normal(-200, 300, SHAPE).clip(-1024, 3000).astype(np.int16)


@in_every_orientation
def test_every_slice_arrives_once_and_is_valid_then(orientation: Array, tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", nifti(*oriented(orientation, np.eye(4))))
    seen = np.zeros(len(ANATOMY), dtype=int)
    with open_scan(path) as reader:
        for part in reader.batches(3):
            seen[part] += 1
            np.testing.assert_array_equal(reader.volume.voxels[part], ANATOMY[part])
        np.testing.assert_array_equal(reader.finish().voxels, ANATOMY)
    assert seen.tolist() == [1] * len(ANATOMY)


@pytest.mark.parametrize("head_first", [False, True])
def test_batches_are_the_same_whichever_end_the_file_begins_with(head_first: bool, tmp_path: Path) -> None:
    array, affine = (HU[::-1].T, LPS_AFFINE @ np.diag([1, 1, -1, 1])) if head_first else (HU.T, LPS_AFFINE)
    with open_scan(save(tmp_path / "scan.nii.gz", nifti(array, affine))) as reader:
        parts = list(reader.batches(10))
    expected = [slice(0, 10), slice(10, 20), slice(20, 23)]
    assert parts == (expected[::-1] if head_first else expected)


def test_the_first_slices_arrive_before_the_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti(np.tile(HU, (4, 8, 1)).T))
    with open_scan(path) as reader:
        reader.read_until(4)
        np.testing.assert_array_equal(reader.volume.voxels[:4, :64], HU[:4])
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 1)
        with pytest.raises(InputError, match="the file is truncated"):
            reader.finish()


def test_damage_is_detected_at_the_end_even_after_slices_have_arrived(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    content = gzip.compress(nifti(np.tile(HU, (10, 2, 2)).T), 0)
    path.write_bytes(patched(content, 6_000_000, [content[6_000_000] ^ 1], "u1"))
    arrived = []

    def read_all() -> None:
        with open_scan(path) as reader:
            arrived.extend(reader.batches(8))
            reader.finish()

    with pytest.raises(InputError) as caught:
        read_all()
    assert (len(arrived) > 10, caught.value.code) == (True, "E_CORRUPT")


@pytest.mark.parametrize("size", [1, 7, 23, 100])
def test_reading_in_batches_gives_what_reading_at_once_gives(size: int, tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", nifti(HU.T))
    with open_scan(path) as reader:
        for _ in reader.batches(size):
            pass
        volume = reader.finish()
    np.testing.assert_array_equal(volume.voxels, read_volume(path).voxels)


def test_int16_in_the_usual_orientation_is_read_to_its_place(tmp_path: Path) -> None:
    with open_scan(save(tmp_path / "scan.nii", nifti(HU.T))) as reader:
        voxels = reader.volume.voxels
        assert reader.finish().voxels is voxels
        assert reader._blocks._scratch.size == 0
