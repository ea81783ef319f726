"""Which scans a cohort has, and where their results go."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.errors import InputError, UsageError
from cascade_rt.run.cohort.cases import Shard, holds_many, of_shard, plan_cases


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(sources: list[Path], output: Path) -> list[str]:
    return [case.name for case in plan_cases(sources, output)]


def test_a_folder_gives_all_scans_in_it_however_deep_in_order(tmp_path: Path) -> None:
    for name in ("s2/ct.nii.gz", "s1/ct.nii.gz", "z.nii", "a.NII.GZ", "notes.txt", "mask.mgz", "mask.seg.nrrd"):
        touch(tmp_path / "scans" / name)
    assert names([tmp_path / "scans"], tmp_path / "out") == ["a", "z", "s1/ct", "s2/ct"]


def test_results_have_the_folders_of_their_scans(tmp_path: Path) -> None:
    touch(tmp_path / "scans" / "s1" / "ct.nii.gz")
    (case,) = plan_cases([tmp_path / "scans"], tmp_path / "out", extras=["picture"])
    assert [path.relative_to(tmp_path / "out").as_posix() for path in case.results] == [
        "s1/ct_seg.nii.gz",
        "s1/ct_seg.json",
        "s1/ct_seg.png",
    ]


def test_hidden_files_and_folders_are_not_scans(tmp_path: Path) -> None:
    for name in ("._a.nii.gz", ".cache/b.nii.gz", "c.nii.gz"):
        touch(tmp_path / name)
    assert names([tmp_path], tmp_path / "out") == ["c"]


def test_results_inside_the_folder_of_scans_are_not_scans(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "out/a_seg.nii.gz"):
        touch(tmp_path / name)
    assert names([tmp_path], tmp_path / "out") == ["a"]


def test_results_among_the_scans_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii.gz")
    with pytest.raises(UsageError, match="results would be mixed with the scans"):
        plan_cases([tmp_path], tmp_path)


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="pass the folder of the scans"):
        plan_cases([tmp_path / "empty"], tmp_path / "out")


def test_a_list_names_scans_relative_to_itself(tmp_path: Path) -> None:
    listed = tmp_path / "lists" / "test.txt"
    touch(listed).write_bytes("\ufeff# of the test set\r\ns1/ct.nii.gz\r\n\r\n  s2/ct.nii\r\n".encode())
    cases = plan_cases([listed], tmp_path / "out")
    assert [(case.name, case.scan) for case in cases] == [
        ("s1/ct", tmp_path / "lists" / "s1" / "ct.nii.gz"),
        ("s2/ct", tmp_path / "lists" / "s2" / "ct.nii"),
    ]


def test_a_line_that_names_a_file_is_not_a_comment(tmp_path: Path) -> None:
    touch(tmp_path / "#12.nii")
    (tmp_path / "list.txt").write_text("#12.nii\n#13.nii\n")
    assert names([tmp_path / "list.txt"], tmp_path / "out") == ["#12"]


def left_out(root: Path) -> list[tuple[Path, str]]:
    told: list[tuple[Path, str]] = []
    plan_cases([root], root.parent / "out", on_left_out=lambda folder, what: told.append((folder, what)))
    return told


def test_images_in_other_formats_are_counted_in_one_phrase(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("a.nii", "b.mgz", "s1/c.MGZ", "d.img", "d.hdr", "e.nii.bz2", "f.nii.gz.part", ".g.mgz", "notes.txt"):
        touch(root / name)
    expected = "1 .hdr file, 1 .img file, 2 .mgz files, 1 .nii.bz2 file, 1 .nii.gz.part file"
    assert left_out(root) == [(root, expected)]


@pytest.mark.parametrize("name", ["IM0001", "1.2.840.113619.2"])
def test_folders_of_dicom_beside_scans_are_counted(tmp_path: Path, name: str) -> None:
    root = tmp_path / "in"
    touch(root / "a.nii")
    for folder in ("p1", "p2"):
        touch(root / folder / name).write_bytes(bytes(128) + b"DICM")
    assert left_out(root) == [(root, "2 DICOM folders")]


def test_nothing_is_reported_if_nothing_is_left_out(tmp_path: Path) -> None:
    for name in ("a.nii", "notes.txt", "README", "p1/a.nii.gz", "report.json"):
        touch(tmp_path / "in" / name)
    assert left_out(tmp_path / "in") == []


@pytest.mark.parametrize("line", ["../elsewhere/ct.nii.gz", "/data/ct.nii.gz"])
def test_results_of_a_list_never_leave_their_folder(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(line)
    (case,) = plan_cases([tmp_path / "list.txt"], tmp_path / "out")
    assert (case.name, case.mask) == ("ct", tmp_path / "out" / "ct_seg.nii.gz")


@pytest.mark.parametrize("content", ["", "# nothing\n\n"])
def test_an_empty_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(UsageError, match="lists no scans"):
        plan_cases([tmp_path / "list.txt"], tmp_path / "out")


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the list cannot be read"):
        plan_cases([tmp_path / "list.txt"], tmp_path / "out")


def test_two_scans_with_the_same_results_are_refused(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        touch(tmp_path / "scans" / name)
    with pytest.raises(UsageError, match="would both become a_seg"):
        plan_cases([tmp_path / "scans"], tmp_path / "out")


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_result_that_is_a_scan_through_a_link_is_refused(tmp_path: Path, link: str) -> None:
    scan = touch(tmp_path / "scans" / "a.nii.gz")
    (tmp_path / "out").mkdir()
    getattr(tmp_path / "out" / "a_seg.nii.gz", link)(scan)
    with pytest.raises(UsageError, match="would be overwritten") as caught:
        plan_cases([tmp_path / "scans"], tmp_path / "out")
    assert caught.value.code == "E_SAME_FILE"


def test_a_folder_named_like_a_scan_is_not_a_cohort(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").mkdir()
    assert not holds_many(tmp_path / "scan.nii.gz")


@given(st.lists(st.text(), unique=True), st.integers(1, 20))
def test_each_case_is_of_exactly_one_part(cases: list[str], count: int) -> None:
    for name in cases:
        assert sum(Shard(index, count).has(name) for index in range(count)) == 1


def test_which_part_a_case_is_of_does_not_change_when_others_come(tmp_path: Path) -> None:
    for number in range(20):
        touch(tmp_path / f"case{number}.nii.gz")
    before = {case.name for case in of_shard(plan_cases([tmp_path], tmp_path / "out"), Shard(0, 3))}
    touch(tmp_path / "a_new_one.nii.gz")
    after = {case.name for case in of_shard(plan_cases([tmp_path], tmp_path / "out"), Shard(0, 3))}
    assert after - {"a_new_one"} == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1", "is not of the form i/n"),
        ("a/2", "is not of the form"),
        ("-1/2", "not of the form"),
        ("2/2", "from 0"),
        ("0/0", "from 0; 0/1 is the whole"),
        ("3/2", "the last of 2 is 1/2"),
        (f"0/{'9' * 5000}", "shard 0/999"),
    ],
)
def test_a_part_that_is_none_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        Shard.parse(text)
    assert len(str(caught.value)) < 200
