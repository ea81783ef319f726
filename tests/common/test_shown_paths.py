"""Folders outside the working folder are not shown."""

from pathlib import Path

import pytest

from cascade_rt.common.shown_paths import hide_folders, plain_text, shown_path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a neighbour."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_a_path_in_the_working_folder_is_shown_from_there(here: Path) -> None:
    assert shown_path(here / "out" / "scan_seg.nii.gz") == "out/scan_seg.nii.gz"
    assert shown_path("./out/../scan.nii.gz") == "scan.nii.gz"


@pytest.mark.parametrize("path", ["/data/DOE_JOHN/scan.nii.gz", "../DOE_JOHN/scan.nii.gz", "../../DOE/scan.nii.gz"])
def test_of_any_other_path_the_last_part_is_shown(path: str) -> None:
    assert shown_path(path) == "scan.nii.gz"


@pytest.mark.parametrize("path", ["..", "../..", "/data/out/"])
def test_a_folder_outside_is_shown_by_its_name(path: str) -> None:
    assert "/" not in shown_path(path)
    assert ".." not in shown_path(path)


def test_paths_of_a_message_are_shortened() -> None:
    message = "/data/DOE/scan.nii.gz: is cut off; look at /data/DOE/out/scan_seg.json"
    shown = hide_folders(message, ["/data/DOE/scan.nii.gz", "/data/DOE/out"])
    assert shown == "scan.nii.gz: is cut off; look at out/scan_seg.json"


def test_files_in_a_named_folder_are_shown_from_there() -> None:
    assert hide_folders("/b/DOE/bundle/manifest.json: no", ["/b/DOE/bundle/"]) == "bundle/manifest.json: no"


def test_one_path_inside_another_is_shortened_as_itself() -> None:
    assert hide_folders("/a/DOE/b/c.nii: no", ["/a/DOE", "/a/DOE/b/c.nii"]) == "c.nii: no"


@pytest.mark.parametrize("path", ["/", "/out", "infer", "relative/scan.nii.gz"])
def test_other_words_stay_as_they_are(path: str) -> None:
    message = "output/x: infer failed for relative/scan.nii.gz and / of https://host/page"
    assert hide_folders(message, [path]) == message


def test_the_home_folder_is_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/doe")
    assert hide_folders("/home/doe/.cache/x: no", []) == "~/.cache/x: no"


def test_a_path_that_looks_like_a_pattern_is_taken_literally() -> None:
    assert hide_folders(r"/a+b/(c)\1.nii: no", [r"/a+b/(c)\1.nii"]) == r"(c)\1.nii: no"


def test_other_absolute_paths_are_shortened_too() -> None:
    message = "ONNX Runtime: /data/DOE/lib.so and '/x/DOE/y.so': no"
    assert hide_folders(message, []) == "ONNX Runtime: lib.so and 'y.so': no"


def test_folders_in_the_home_folder_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/doe")
    assert hide_folders("/home/doe/DOE_JOHN/scan.nii: no", []) == "scan.nii: no"


def test_a_message_survives_a_working_folder_that_is_gone(here: Path) -> None:
    here.rmdir()
    assert hide_folders("/data/DOE/scan.nii: is cut off", ["/data/DOE/scan.nii", "x.nii"]) == "scan.nii: is cut off"


def test_a_message_survives_a_user_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(nobody))
    assert hide_folders("/data/DOE/scan.nii: is cut off", ["/data/DOE/scan.nii"]) == "scan.nii: is cut off"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2Jclear.nii", "?[2Jclear.nii"),
        ("\x9b31mred.nii", "?31mred.nii"),
        ("a\nb\r\tc\x07.nii", "a?b??c?.nii"),
        ("\u202egz.iin\u2066", "?gz.iin?"),
        ("line\u2028break\x85", "line?break?"),
        ("caf\udce9.nii", "caf?.nii"),
        ("Röntgen 腹部 \u00a0.nii", "Röntgen 腹部 \u00a0.nii"),
    ],
)
def test_control_and_format_characters_become_question_marks(name: str, shown: str) -> None:
    assert plain_text(name) == shown


def test_lines_stay_where_they_are_wanted() -> None:
    assert plain_text("1 of 2 failed\n  a\x1b", lines=True) == "1 of 2 failed\n  a?"
