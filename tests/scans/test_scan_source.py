"""A scan that one thread reads and another uses: what is promised to whom, and how it ends."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.common.tensors import SLICES_PER_BATCH
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import InputError
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.opening import open_scan
from cascade_rt.scans.source import SLICES_PER_STEP, ScanInBackground
from cascade_rt.scans.volume import FileReader
from tests.cohort_files import AFFINE, fake_cascade

SLICES = 3 * SLICES_PER_STEP + 1
HEAD_FIRST = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def write_scan(
    path: Path, affine: np.ndarray = AFFINE, *, shape: tuple[int, int, int] = (SLICES, 32, 40)
) -> np.ndarray:
    """A scan `[k, j, i]`, written with these axes."""
    voxels = np.random.default_rng(0).integers(-400, 400, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels.T, affine), path)
    return voxels


class GatedReader(FileReader):
    """Reads no part of the scan before the test lets it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_read = threading.Semaphore(0)
        self.parts = 0
        self.closed = False

    def batches(self, size: int) -> Iterator[slice]:
        for part in super().batches(size):
            self.may_read.acquire()
            self.parts += 1
            yield part

    def close(self) -> None:
        super().close()
        self.closed = True


def test_slices_are_those_of_the_file(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    expected = write_scan(tmp_path / "scan.nii.gz")
    scan = ScanInBackground(lambda: open_scan(tmp_path / "scan.nii.gz"), threads)
    scan.wait_for(slice(0, 5))
    np.testing.assert_array_equal(scan.voxels[:5], expected[:5])
    np.testing.assert_array_equal(scan.finish().voxels, expected)
    assert scan.name == "scan"


def test_the_first_slices_can_be_used_while_the_others_are_missing(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    expected = write_scan(tmp_path / "scan.nii.gz")
    reader = GatedReader(tmp_path / "scan.nii.gz")
    scan = ScanInBackground(lambda: reader, threads)
    reader.may_read.release()
    scan.wait_for(slice(0, SLICES_PER_STEP))
    np.testing.assert_array_equal(scan.voxels[:SLICES_PER_STEP], expected[:SLICES_PER_STEP])
    assert reader.parts == 1
    reader.may_read.release(9)
    scan.finish()


def test_a_scan_stored_from_the_head_arrives_from_there(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    expected = write_scan(tmp_path / "scan.nii.gz", HEAD_FIRST)[::-1]
    reader = GatedReader(tmp_path / "scan.nii.gz")
    scan = ScanInBackground(lambda: reader, threads)
    reader.may_read.release()
    assert scan.head_first
    scan.wait_for(slice(SLICES - 1, SLICES))
    np.testing.assert_array_equal(scan.voxels[-1], expected[-1])
    assert reader.parts == 1
    reader.may_read.release(9)
    scan.wait_for(slice(0, SLICES))
    np.testing.assert_array_equal(scan.voxels, expected)


def test_a_scan_of_other_axes_arrives_whole(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    expected = write_scan(tmp_path / "scan.nii.gz", AFFINE[:, [2, 1, 0, 3]])
    scan = ScanInBackground(lambda: open_scan(tmp_path / "scan.nii.gz"), threads)
    scan.wait_for(slice(0, 1))
    np.testing.assert_array_equal(scan.voxels, np.transpose(expected, (2, 1, 0)))


def test_a_file_that_cannot_be_opened_is_an_error_for_whoever_asks(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    scan = ScanInBackground(lambda: open_scan(tmp_path / "missing.nii.gz"), threads)
    for ask in (lambda: scan.name, lambda: scan.wait_for(slice(0, 1)), scan.finish):
        with pytest.raises(InputError, match=r"missing\.nii\.gz"):
            ask()


def test_damage_fails_waits_for_the_slices_after_it(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    write_scan(tmp_path / "scan.nii.gz", shape=(48, 256, 256))
    content = (tmp_path / "scan.nii.gz").read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(content[: len(content) * 9 // 10])
    scan = ScanInBackground(lambda: open_scan(tmp_path / "scan.nii.gz"), threads)
    with pytest.raises(InputError) as caught:
        scan.wait_for(slice(47, 48))
    assert caught.value.code == "E_TRUNCATED"


def test_a_small_shortfall_is_reported_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    write_scan(path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{len(content):,} bytes expected, {len(content) - 1:,} bytes found"):
        open_scan(path)


def test_damage_after_the_last_slice_is_detected_at_the_end(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    write_scan(tmp_path / "scan.nii.gz")
    content = bytearray((tmp_path / "scan.nii.gz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "scan.nii.gz").write_bytes(content)
    scan = ScanInBackground(lambda: open_scan(tmp_path / "scan.nii.gz"), threads)
    with pytest.raises(InputError) as caught:
        scan.finish()
    assert caught.value.code == "E_CORRUPT"


def test_damage_found_at_the_end_fails_later_waits_for_early_slices(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    write_scan(tmp_path / "scan.nii.gz")
    content = bytearray((tmp_path / "scan.nii.gz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "scan.nii.gz").write_bytes(content)
    scan = ScanInBackground(lambda: open_scan(tmp_path / "scan.nii.gz"), threads)
    with pytest.raises(InputError):
        scan.finish()
    with pytest.raises(InputError) as caught:
        scan.wait_for(slice(0, 1))
    assert caught.value.code == "E_CORRUPT"


def test_a_scan_without_a_body_is_segmented_no_further_than_it_was_read(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    bomb = nib.Nifti1Image(np.zeros((64, 64, 512), np.int16), AFFINE)
    nib.save(bomb, tmp_path / "scan.nii.gz")
    cascade = fake_cascade()
    seen = 0

    def find_organ(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal seen
        seen += len(inputs["hu"])
        wait([scan._finished])
        return cascade.engines.stage1.run(inputs)

    engines = replace(cascade.engines, stage1=FakeEngine("stage1", find_organ))
    scan = ScanInBackground(lambda: open_scan(tmp_path / "scan.nii.gz"), threads)
    with pytest.raises(InputError) as caught:
        Cascade(cascade.bundle, engines).run(scan)
    assert caught.value.code == "E_NO_BODY"
    assert seen <= SLICES_PER_BATCH


def test_a_bug_in_the_reader_keeps_its_type(threads: ThreadPoolExecutor) -> None:
    def broken() -> FileReader:
        raise ZeroDivisionError("our bug")

    with pytest.raises(ZeroDivisionError, match="our bug"):
        ScanInBackground(broken, threads).wait_for(slice(0, 1))


def test_a_scan_that_is_closed_is_read_no_further(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    write_scan(tmp_path / "scan.nii.gz")
    reader = GatedReader(tmp_path / "scan.nii.gz")
    scan = ScanInBackground(lambda: reader, threads)
    reader.may_read.release()
    scan.wait_for(slice(0, SLICES_PER_STEP))
    scan._unwanted = True
    reader.may_read.release()
    scan.close()
    assert reader.parts == 2
    assert reader.closed


def test_a_scan_that_is_closed_before_its_turn_is_never_opened(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    write_scan(tmp_path / "scan.nii.gz")
    reader = GatedReader(tmp_path / "scan.nii.gz")
    first, opened = ScanInBackground(lambda: reader, threads), []
    second = ScanInBackground(lambda: opened.append(1), threads)  # type: ignore[arg-type, return-value]
    second.close()
    reader.may_read.release(9)
    first.close()
    assert opened == []
