"""Phantoms on disk: NIfTI files as a scanner writes them, and cases of a store."""

from pathlib import Path

import numpy as np

from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt.data.phantom_store import prepare_phantoms
from cascade_rt.data.slices import open_cases
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import read_mask

SHAPE = (16, 64, 80)


def test_a_phantom_written_and_read_is_the_same_scan(tmp_path: Path) -> None:
    phantom = make_phantom(5, SHAPE)
    scan, label = tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz"
    write_phantom_files(phantom, scan, label)
    volume = read_volume(scan)
    np.testing.assert_array_equal(volume.voxels, phantom.hu)
    np.testing.assert_allclose(volume.spacing_mm, phantom.spacing_mm, rtol=1e-6)
    np.testing.assert_array_equal(read_mask(label, like=volume), phantom.label)


def test_a_store_gets_the_phantoms_it_lacks(tmp_path: Path) -> None:
    made: list[str] = []
    names = prepare_phantoms(tmp_path, [3], SHAPE, on_case=made.append)
    (case,) = open_cases(tmp_path, names)
    np.testing.assert_array_equal(case.image, make_phantom(3, SHAPE).hu)
    assert made == names


def test_a_store_is_not_made_twice(tmp_path: Path) -> None:
    names = prepare_phantoms(tmp_path, [3], SHAPE)
    before = (tmp_path / names[0] / "image.npy").stat().st_mtime_ns
    assert prepare_phantoms(tmp_path, [3], SHAPE) == names
    assert (tmp_path / names[0] / "image.npy").stat().st_mtime_ns == before


def test_several_phantoms_are_made_in_processes_and_come_in_order(tmp_path: Path) -> None:
    names = prepare_phantoms(tmp_path, [4, 3], SHAPE)
    second = open_cases(tmp_path, names)[1]
    np.testing.assert_array_equal(second.label, make_phantom(3, SHAPE).label)


def test_phantoms_of_another_shape_are_other_cases(tmp_path: Path) -> None:
    assert prepare_phantoms(tmp_path, [3], SHAPE) != prepare_phantoms(tmp_path, [3], (16, 64, 64))
