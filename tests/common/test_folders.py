"""A walk through a folder enters each folder once, and leaves none out without a word."""

import os
from pathlib import Path

import pytest

from cascade_rt.common.folders import raise_unreadable, walk_folder
from cascade_rt.errors import InputError


def tree(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def walked(root: Path) -> list[str]:
    return [
        (content.path / name).relative_to(root).as_posix()
        for content in walk_folder(root, raise_unreadable)
        for name in content.files
    ]


def test_files_come_sorted_and_before_those_of_the_folders_beside_them(tmp_path: Path) -> None:
    assert walked(tree(tmp_path, "b/2", "b/1", "a/c/3", "z", "a/4")) == ["z", "a/4", "a/c/3", "b/1", "b/2"]


def test_a_linked_folder_is_entered(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "own")
    (root / "linked").symlink_to(tree(tmp_path / "elsewhere", "other").resolve())
    assert walked(root) == ["own", "linked/other"]


def test_a_folder_reachable_through_a_link_is_entered_once(tmp_path: Path) -> None:
    tree(tmp_path, "z/scan")
    (tmp_path / "a").symlink_to("z")
    assert walked(tmp_path) == ["z/scan"]


def test_a_link_that_leads_back_is_not_followed_round_and_round(tmp_path: Path) -> None:
    tree(tmp_path, "a/scan")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(".")
    assert walked(tmp_path) == ["a/scan"]


def test_a_broken_link_is_listed_among_the_files(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert walked(tmp_path) == ["gone", "loop"]


def test_a_folder_removed_from_the_list_is_not_entered(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/2")
    found = []
    for content in walk_folder(tmp_path, raise_unreadable):
        content.folders[:] = [name for name in content.folders if name != "a"]
        found += content.files
    assert found == ["2"]


def test_an_unreadable_folder_is_reported_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, and so the system call stands in for the permission."""
    tree(tmp_path, "a/1", "b/2")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path == tmp_path / "a":
            raise PermissionError(13, os.strerror(13))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="a: the folder cannot be read") as caught:
        walked(tmp_path)
    assert caught.value.code == "E_READ"
    told: list[str] = []
    assert [each.path.name for each in walk_folder(tmp_path, lambda error: told.append(error.filename))][1:] == ["b"]
    assert told == [str(tmp_path / "a")]
