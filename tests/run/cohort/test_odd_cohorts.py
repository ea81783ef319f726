"""Odd folders and lists: a run never has fewer scans than were named, and an odd one harms no other."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade_rt.errors import CascadeError, InputError, UsageError
from cascade_rt.run.cohort.cases import plan_cases
from cascade_rt.run.cohort.journal import journal_path, read_journal
from cascade_rt.run.cohort.run import Summary
from cascade_rt.run.inference import infer_file
from tests.cohort_files import fake_cascade
from tests.cohort_runs import masks, names, run, save_scan

MakeOdd = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one good scan."""
    save_scan(tmp_path / "in" / "good.nii.gz")
    return tmp_path / "in"


def outcome(source: Path, output: Path, **options: bool) -> Summary:
    return run(source, output, cases=plan_cases([source], output), **options)


def link(name: str, target: str) -> MakeOdd:
    return lambda root: (root / name).symlink_to(target)


def folder(name: str) -> MakeOdd:
    return lambda root: (root / name).mkdir()


def device(root: Path) -> None:
    (root / "odd.nii").symlink_to("/dev/zero")


def under_a_file(root: Path) -> None:
    (root / "odd.nii.gz").symlink_to("good.nii.gz/inside")


def text(content: bytes) -> MakeOdd:
    return lambda root: (root / "odd.nii.gz").write_bytes(content)


ODD_FOLDERS: dict[str, tuple[MakeOdd, str, str]] = {
    "pipe": (lambda root: os.mkfifo(root / "odd.nii.gz"), "odd", "E_NOT_A_FILE"),
    "device": (device, "odd", "E_NOT_A_FILE"),
    "link_to_itself": (link("odd.nii.gz", "odd.nii.gz"), "odd", "E_READ"),
    "link_to_nothing": (link("odd.nii.gz", "nowhere"), "odd", "E_NOT_FOUND"),
    "folder_of_a_scan_that_is_gone": (link("patient7", "/nowhere/patient7"), "patient7", "E_NOT_FOUND"),
    "folder_of_a_date": (link("2020.11.30", "/nowhere/2020.11.30"), "2020.11.30", "E_NOT_FOUND"),
    "folder_of_a_uid": (link("1.2.840.113619.2", "/nowhere/uid"), "1.2.840.113619.2", "E_NOT_FOUND"),
    "folder_that_is_a_loop": (link("patient7", "patient7"), "patient7", "E_NOT_FOUND"),
    "link_below_a_file": (under_a_file, "odd", "E_READ"),
    "name_too_long_for_a_mask": (lambda root: save_scan(root / f"{'n' * 248}.nii"), "n" * 248, "E_OUTPUT"),
    "name_too_long_for_a_report": (lambda root: save_scan(root / f"{'n' * 247}.nii.gz"), "n" * 247, "E_OUTPUT"),
    "no_bytes": (text(b""), "odd", "E_EMPTY"),
    "not_nifti": (text(b"x" * 400), "odd", "E_NOT_GZIP"),
}

HARMLESS: dict[str, MakeOdd] = {
    "link_to_its_own_folder": link("again", "."),
    "link_to_the_folder_above": link("up", ".."),
    "link_to_a_note_that_is_gone": link("notes.txt", "nowhere"),
    "link_to_an_image_of_another_format_that_is_gone": link("odd.mgz", "nowhere"),
    "empty_folder": folder("empty"),
    "hidden_pipe": lambda root: os.mkfifo(root / ".odd.nii.gz"),
    "socket_like_pipe_of_another_name": lambda root: os.mkfifo(root / "pipe"),
}


@pytest.mark.parametrize(("make", "name", "code"), ODD_FOLDERS.values(), ids=ODD_FOLDERS)
def test_an_odd_entry_of_a_folder_fails_alone_under_its_name(
    root: Path, tmp_path: Path, make: MakeOdd, name: str, code: str
) -> None:
    make(root)
    for resume in (False, True):
        summary = outcome(root, tmp_path / "out", resume=resume)
        assert {case: error.code for case, error in summary.failures.items()} == {name: code}
        assert list(masks(tmp_path / "out")) == ["good_seg.nii.gz"]


@pytest.mark.parametrize("make", HARMLESS.values(), ids=HARMLESS)
def test_a_file_other_than_a_scan_is_none(root: Path, tmp_path: Path, make: MakeOdd) -> None:
    make(root)
    assert (outcome(root, tmp_path / "out").done, names(tmp_path / "out")[-1]) == (1, "journal.jsonl")


def test_scans_behind_links_are_computed_once(root: Path, tmp_path: Path) -> None:
    save_scan(tmp_path / "archive" / "patient1" / "ct.nii.gz", 1)
    (root / "linked").symlink_to(tmp_path / "archive" / "patient1")
    (root / "again").symlink_to(tmp_path / "archive" / "patient1")
    (root / "file.nii.gz").symlink_to(tmp_path / "archive" / "patient1" / "ct.nii.gz")
    assert outcome(root, tmp_path / "out").failures == {}
    assert list(masks(tmp_path / "out")) == ["again/ct_seg.nii.gz", "file_seg.nii.gz", "good_seg.nii.gz"]


def test_an_unreadable_folder_is_a_failure_and_the_rest_is_done(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_scan(root / "closed" / "ct.nii.gz")
    scandir = os.scandir

    def refuse(path: object = ".") -> object:
        if path == root / "closed":
            raise PermissionError(13, os.strerror(13))
        return scandir(path)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        cases = plan_cases([root], tmp_path / "out")
    summary = run(root, tmp_path / "out", cases=cases)
    assert {case: error.code for case, error in summary.failures.items()} == {"closed/": "E_READ"}
    assert summary.done == 1
    (entry,) = (each for each in read_journal(journal_path(tmp_path / "out")) if each.status == "failed")
    told = "the folder cannot be read (Permission denied); check its permissions or remove it"
    assert entry.message == f"closed/: {told}"


def test_a_folder_that_was_named_and_cannot_be_read_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> object:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="the folder cannot be read"):
        plan_cases([root], root.parent / "out")


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-16-le-marked", "utf-16-be-marked"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_list_is_read_in_every_encoding_that_it_tells(root: Path, tmp_path: Path, encoding: str, end: str) -> None:
    lines = f"# Röntgen{end}in/good.nii.gz{end}"
    plain = encoding.removesuffix("-marked")
    (tmp_path / "list.txt").write_bytes((lines if plain == encoding else f"\ufeff{lines}").encode(plain))
    (case,) = plan_cases([tmp_path / "list.txt"], tmp_path / "out")
    assert (case.name, case.scan) == ("in/good", root / "good.nii.gz")


ODD_LINES: dict[str, tuple[bytes, str, str]] = {
    "nul": (b"in/x\0.nii", "list.txt:2", "E_NOT_A_FILE"),
    "five_thousand_letters": (b"x" * 5000 + b".nii", "x" * 5000, "E_OUTPUT"),
    "a_thousand_folders": (b"d/" * 3000 + b"x.nii", "d/" * 3000 + "x", "E_OUTPUT"),
    "root": (b"/", "list.txt:2", "E_NOT_A_FILE"),
    "folder_above": (b"..", "list.txt:2", "E_NOT_A_FILE"),
    "the_folder_of_the_list": (b".", "list.txt:2", "E_NOT_A_FILE"),
    "folder": (b"in", "in", "E_NOT_A_FILE"),
    "missing": (b"in/missing.nii.gz", "in/missing", "E_NOT_FOUND"),
    "windows_path": (rb"in\good.nii.gz", r"in\good", "E_NOT_FOUND"),
    "no_text": (b"caf\xe9.nii", os.fsdecode(b"caf\xe9"), "E_NOT_FOUND"),
    "separator_of_lines": ("a\u2028in/good.nii.gz".encode(), "a\u2028in/good", "E_NOT_FOUND"),
    "below_a_file": (b"in/good.nii.gz/x.nii", "in/good.nii.gz/x", "E_READ"),
    "terminal": (b"\x1b[2J.nii", "\x1b[2J", "E_NOT_FOUND"),
    "bytes_of_another_alphabet": (b"\xff\xfe\xfd.nii", os.fsdecode(b"\xff\xfe\xfd"), "E_NOT_FOUND"),
}


@pytest.mark.parametrize(("line", "name", "code"), ODD_LINES.values(), ids=ODD_LINES)
def test_an_odd_line_of_a_list_fails_alone_under_its_name(
    root: Path, tmp_path: Path, line: bytes, name: str, code: str
) -> None:
    (tmp_path / "list.txt").write_bytes(b"in/good.nii.gz\n" + line + b"\n")
    summary = outcome(tmp_path / "list.txt", tmp_path / "out")
    assert {case: error.code for case, error in summary.failures.items()} == {name: code}
    assert list(masks(tmp_path / "out")) == ["in/good_seg.nii.gz"]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, InputError),
        (lambda path: path.symlink_to("/dev/zero"), InputError),
        (lambda path: path.symlink_to(path.name), InputError),
        (lambda path: path.write_bytes(b"\xff\xfea"), InputError),
        (lambda path: path.write_bytes(b"\xff\xfe"), UsageError),
        (lambda path: path.mkdir(), UsageError),
    ],
    ids=["pipe", "device", "link to itself", "half a letter", "only a mark", "empty folder"],
)
def test_an_odd_list_is_refused_with_a_sentence(tmp_path: Path, make: MakeOdd, kind: type[CascadeError]) -> None:
    make(tmp_path / "list.txt")
    with pytest.raises(kind, match=r"list.txt: "):
        plan_cases([tmp_path / "list.txt"], tmp_path / "out")


def test_masks_of_earlier_runs_are_not_scans(root: Path, tmp_path: Path) -> None:
    infer_file(fake_cascade(), plan_cases([root / "good.nii.gz"], root)[0])
    assert (root / "good_seg.nii.gz").exists()
    assert [case.name for case in plan_cases([root], tmp_path / "out")] == ["good"]


def test_a_scan_beside_a_report_of_another_file_is_a_scan(root: Path, tmp_path: Path) -> None:
    infer_file(fake_cascade(), plan_cases([root / "good.nii.gz"], root)[0])
    (root / "good_seg.json").rename(root / "good.json")
    assert [case.name for case in plan_cases([root], tmp_path / "out")] == ["good", "good_seg"]


@pytest.mark.parametrize("report", ["{", "[]", "{}", '{"report_version": 1, "output": 5}', "[" * 100_000])
def test_a_scan_beside_any_other_file_is_a_scan(root: Path, tmp_path: Path, report: str) -> None:
    (root / "good.json").write_text(report)
    assert [case.name for case in plan_cases([root], tmp_path / "out")] == ["good"]


def test_a_result_that_cannot_be_replaced_fails_its_own_case(root: Path, tmp_path: Path) -> None:
    outcome(root, tmp_path / "out")
    save_scan(root / "new.nii.gz")
    entries = (tmp_path / "out" / "journal.jsonl").read_text()
    (tmp_path / "out" / "journal.jsonl").write_text(entries + json.dumps({"case": "good", "status": "started"}) + "\n")
    (tmp_path / "out" / "good_seg.nii.gz").unlink()
    (tmp_path / "out" / "good_seg.nii.gz").mkdir()
    summary = outcome(root, tmp_path / "out", resume=True)
    assert (summary.done, {case: error.code for case, error in summary.failures.items()}) == (1, {"good": "E_OUTPUT"})
