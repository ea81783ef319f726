"""The case store keeps volumes on disk and refuses half-written cases."""

from pathlib import Path

import numpy as np
import pytest

from cascade_rt.data.slices import has_case, is_intact, open_cases, write_case
from cascade_rt.errors import InputError


def add_case(store: Path, name: str = "case", shape: tuple[int, ...] = (3, 8, 9)) -> np.ndarray:
    image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    write_case(store, name, image, np.ones(shape, dtype=np.uint8), (2.5, 0.8, 0.7))
    return image


def test_a_case_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    image = add_case(tmp_path)
    (case,) = open_cases(tmp_path, ["case"])
    np.testing.assert_array_equal(case.image, image)
    assert (case.label.dtype, case.spacing_mm) == (np.dtype(np.uint8), (2.5, 0.8, 0.7))


def test_volumes_are_memory_mapped(tmp_path: Path) -> None:
    add_case(tmp_path)
    (case,) = open_cases(tmp_path, ["case"])
    assert isinstance(case.image, np.memmap)
    assert isinstance(case.label, np.memmap)


def test_cases_come_in_the_order_asked_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        add_case(tmp_path, name)
    assert [case.name for case in open_cases(tmp_path, ["b", "a"])] == ["b", "a"]


def test_an_unfinished_case_is_refused(tmp_path: Path) -> None:
    add_case(tmp_path)
    (tmp_path / "case" / "case.json").unlink()
    assert not has_case(tmp_path, "case")
    with pytest.raises(InputError, match="has no finished case 'case'; prepare it again"):
        open_cases(tmp_path, ["case"])


def test_image_and_label_of_different_shape_are_refused(tmp_path: Path) -> None:
    image, label = np.zeros((3, 8, 9), dtype=np.int16), np.zeros((3, 8, 8), dtype=np.uint8)
    write_case(tmp_path, "case", image, label, (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"image \(3, 8, 9\) and label \(3, 8, 8\) differ in shape"):
        open_cases(tmp_path, ["case"])


@pytest.mark.parametrize(
    "array", [np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 9), np.int16)], ids=["shape", "dtype"]
)
def test_an_array_of_another_kind_than_was_written_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    add_case(tmp_path)
    np.save(tmp_path / "case" / "label.npy", array)
    with pytest.raises(InputError, match=r"label.npy: has changed since it was written; delete its folder and prepare"):
        open_cases(tmp_path, ["case"])


def test_a_truncated_array_is_refused(tmp_path: Path) -> None:
    add_case(tmp_path)
    path = tmp_path / "case" / "image.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"image.npy: cannot be read; delete its folder and prepare it again"):
        open_cases(tmp_path, ["case"])


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "{}", '{"spacing_mm": null}', '{"spacing_mm": "abc"}', '{"spacing_mm": [1, 1]}'),
        *('{"spacing_mm": [NaN, 1, 1]}', '{"spacing_mm": [1, 1, 0]}', '{"spacing_mm": [1, 1, 1], "source": []}'),
        *('{"spacing_mm": [1, 1, 1], "arrays": null}', '{"spacing_mm": [1, 1, 1], "arrays": {"image.npy": {}}}'),
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_damaged_case_json_is_refused_and_is_not_intact(tmp_path: Path, content: str) -> None:
    add_case(tmp_path)
    (tmp_path / "case" / "case.json").write_text(content)
    assert not is_intact(tmp_path, "case")
    with pytest.raises(InputError, match=r"case.json cannot be read; delete the folder and prepare it again"):
        open_cases(tmp_path, ["case"])


@pytest.mark.parametrize("more", ["", ', "arrays": {}'])
def test_a_case_without_hashes_is_read_and_is_not_intact(tmp_path: Path, more: str) -> None:
    add_case(tmp_path)
    (tmp_path / "case" / "case.json").write_text('{"spacing_mm": [2.5, 0.8, 0.7]' + more + "}")
    assert open_cases(tmp_path, ["case"])
    assert not is_intact(tmp_path, "case")


def test_intact_is_a_case_whose_bytes_are_those_that_were_written(tmp_path: Path) -> None:
    add_case(tmp_path)
    assert is_intact(tmp_path, "case")
    with (tmp_path / "case" / "image.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    assert not is_intact(tmp_path, "case")
