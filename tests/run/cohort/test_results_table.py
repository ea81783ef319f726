"""The table of a cohort: a row for each case, from the journals and the reports."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from cascade_rt.errors import CascadeError, InputError, OutputError, OutputExistsError, UsageError
from cascade_rt.run.cohort.cases import Shard
from cascade_rt.run.cohort.journal import Entry, journal_path
from cascade_rt.run.cohort.results_table import (
    COLUMNS,
    CaseRow,
    read_results,
    results_csv,
    results_path,
    write_results,
)
from tests.cohort_files import HU, VOXEL_ML, save_labels
from tests.cohort_runs import run, save_scan


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A scan with pancreas and tumor, one with neither, and one that cannot be read."""
    save_scan(tmp_path / "scans" / "good.nii.gz")
    nothing = HU[np.zeros((6, 8, 8), dtype=np.uint8)]
    nothing[:, :, ::2] = 40
    save_labels(tmp_path / "scans" / "sub" / "nothing.nii.gz", nothing)
    (tmp_path / "scans" / "bad.nii.gz").write_bytes(b"")
    return tmp_path / "scans"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def rows_of(output: Path, shard: Shard | None = None, **failures: CascadeError) -> dict[str, CaseRow]:
    return {row.case: row for row in read_results(output, shard, failures)}


def append(output: Path, *entries: Entry) -> None:
    output.mkdir(exist_ok=True)
    with journal_path(output).open("ab") as file:
        file.writelines(entry.to_line() for entry in entries)


def cell_of(name: str) -> str:
    """The first cell of a row for a case, as a program reads it."""
    return next(csv.DictReader(io.StringIO(results_csv([CaseRow(name, "failed")]))))["case"]


def test_a_row_has_the_status_of_the_report_and_what_was_measured(scans: Path, output: Path) -> None:
    run(scans, output)
    row, report = rows_of(output)["good"], json.loads((output / "good_seg.json").read_text())
    assert (row.status, row.error_code, row.attempts) == (report["status"], None, 1)
    assert (row.tumor_ml, row.organ_ml) == (pytest.approx(2 * VOXEL_ML), pytest.approx(64 * VOXEL_ML))
    assert row.pancreas_ml == pytest.approx(62 * VOXEL_ML)
    assert (row.lesions, row.largest_lesion_mm) == (1, report["lesions"][0]["diameter_mm"])
    assert (row.slices_with_organ, row.seconds) == (4, report["wall_s"])
    assert row.warnings == tuple(warning["code"] for warning in report["warnings"])


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_a_scan_of_another_format_has_a_row_like_any_other(tmp_path: Path, output: Path, suffix: str) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    pytest.importorskip("nrrd", reason="pynrrd is not installed")
    found = save_scan(tmp_path / "good.nii.gz")
    (tmp_path / "scans").mkdir()
    sitk.WriteImage(sitk.ReadImage(str(found)), str(tmp_path / "scans" / f"good{suffix}"))
    run(tmp_path / "scans", output)
    row = rows_of(output)["good"]
    assert (row.status, row.error_code) == (json.loads((output / "good_seg.json").read_text())["status"], None)
    assert row.tumor_ml == pytest.approx(2 * VOXEL_ML)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_mask_in_the_format_of_its_scan_has_its_measurements(scans: Path, output: Path, suffix: str) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    pytest.importorskip("nrrd", reason="pynrrd is not installed")
    sitk.WriteImage(sitk.ReadImage(scans / "good.nii.gz"), scans / f"other{suffix}")
    run(scans, output)
    row = rows_of(output)["other"]
    assert (row.error_code, row.organ_ml) == (None, pytest.approx(64 * VOXEL_ML))


def test_an_empty_mask_has_the_status_no_organ(scans: Path, output: Path) -> None:
    run(scans, output)
    row = rows_of(output)["sub/nothing"]
    assert (row.status, row.organ_ml, row.lesions, row.largest_lesion_mm) == ("no_organ", 0.0, 0, None)


def test_a_failed_case_has_its_error_code_and_no_measurements(scans: Path, output: Path) -> None:
    run(scans, output)
    assert rows_of(output)["bad"] == CaseRow("bad", "failed", error_code="E_EMPTY")


def test_rows_are_sorted_by_case(scans: Path, output: Path) -> None:
    run(scans, output)
    assert [row.case for row in read_results(output)] == ["bad", "good", "sub/nothing"]


def test_a_resumed_run_has_rows_for_cases_that_it_skips(scans: Path, output: Path) -> None:
    run(scans, output)
    before = rows_of(output)
    save_scan(scans / "new.nii.gz", 1)
    run(scans, output, resume=True)
    after = rows_of(output)
    assert after.pop("new").status == before["good"].status
    assert after == before


def test_each_shard_has_its_own_cases_and_all_shards_have_all(scans: Path, output: Path) -> None:
    shards = [Shard(0, 2), Shard(1, 2)]
    for number in range(6):
        save_scan(scans / f"case{number}.nii.gz", number)
    cases = [set(rows_of(output, shard)) for shard in shards if run(scans, output, shard=shard)]
    assert all(cases)
    assert not cases[0] & cases[1]
    assert cases[0] | cases[1] == set(rows_of(output))


def test_shards_have_tables_of_different_names(output: Path) -> None:
    names = [results_path(output, shard).name for shard in (None, Shard(0, 2), Shard(1, 2))]
    assert names == ["results.csv", "results.0-of-2.csv", "results.1-of-2.csv"]


def test_a_refused_case_is_in_the_table_of_every_shard(output: Path) -> None:
    error = InputError("sub/: cannot be read; check its permissions")
    append(output, Entry("sub/", "failed", code=error.code))
    for shard in (Shard(0, 2), Shard(1, 2)):
        assert list(rows_of(output, shard, **{"sub/": error})) == ["sub/"]


def test_a_failure_that_no_journal_has_gets_a_row(output: Path) -> None:
    append(output, Entry("other", "failed", code="E_EMPTY"))
    row = rows_of(output, new=OutputExistsError("new_seg.nii.gz: already exists"))["new"]
    assert (row.status, row.error_code) == ("failed", "E_EXISTS")


def test_a_run_that_may_not_replace_results_keeps_their_rows(scans: Path, output: Path) -> None:
    run(scans, output)
    before = rows_of(output)
    assert rows_of(output, **run(scans, output).failures) == before


@pytest.mark.parametrize("name", ["good_seg.nii.gz", "good_seg.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{}")], ids=["removed", "changed"])
def test_a_result_changed_or_removed_since_has_no_measurements(
    scans: Path, output: Path, name: str, damage: object
) -> None:
    run(scans, output)
    damage(output / name)  # type: ignore[operator]
    assert rows_of(output)["good"] == CaseRow("good", "changed", error_code="E_CHANGED")


@pytest.mark.parametrize("status", ["started", "interrupted"])
def test_a_case_that_is_not_finished_has_the_status_of_its_newest_entry(scans: Path, output: Path, status: str) -> None:
    run(scans, output)
    append(output, Entry("good", status))  # type: ignore[arg-type]
    assert rows_of(output)["good"] == CaseRow("good", status)


def test_a_truncated_last_line_is_ignored(scans: Path, output: Path) -> None:
    run(scans, output)
    before = rows_of(output)
    with journal_path(output).open("ab") as file:
        file.write(b'{"case": "good", "sta')
    assert rows_of(output) == before


def test_a_damaged_journal_is_refused(scans: Path, output: Path) -> None:
    run(scans, output)
    path = journal_path(output)
    path.write_bytes(b"garbage\n" + path.read_bytes())
    with pytest.raises(OutputError, match="line 1") as caught:
        read_results(output)
    assert caught.value.code == "E_JOURNAL"


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "nul\0", "", "x" * 300])
def test_an_invalid_case_name_gives_a_row_without_measurements(output: Path, name: str) -> None:
    append(output, Entry(name, "done", outputs={}))
    assert rows_of(output)[name].status == "changed"


def test_a_report_with_other_keys_leaves_the_status_of_the_journal(scans: Path, output: Path) -> None:
    run(scans, output)
    entries = [json.loads(line) for line in journal_path(output).read_text().splitlines()]
    done = next(entry for entry in entries if entry["case"] == "good" and entry["status"] == "done")
    (output / "good_seg.json").write_bytes(b"{}")
    outputs = {**done["outputs"], "good_seg.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    append(output, Entry("good", "done", outputs=outputs, found=done["found"]))
    assert rows_of(output)["good"] == CaseRow("good", done["found"])


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no journal"):
        read_results(tmp_path)


def test_a_table_has_a_header_and_a_line_for_each_row() -> None:
    rows = [
        CaseRow("a", "ok", 70.0, 1e-5, 70.12345678, 1, 3.0, 20, ("W_UNITS", "W_SHEAR"), None, 2, 0.25),
        CaseRow("b, c", "failed", error_code="E_EMPTY"),
    ]
    assert results_csv(rows).split("\r\n") == [
        ",".join(COLUMNS),
        "a,ok,70,1e-05,70.1235,1,3,20,W_UNITS W_SHEAR,,2,0.25",
        '"b, c",failed,,,,,,,,E_EMPTY,1,',
        "",
    ]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "＝1"])  # noqa: RUF001
def test_a_name_that_could_be_a_formula_gets_an_apostrophe(name: str) -> None:
    assert cell_of(name) == f"'{name}"


def test_control_characters_and_undecodable_bytes_of_a_name_are_escaped() -> None:
    assert cell_of("\t=1\r\n\x1b[2J\udcff") == r"\t=1\r\n\x1b[2J\udcff"


@pytest.mark.parametrize("name", ["a=1", 'quo"te', "Zoë", "a b/c,d;e"])
def test_any_other_name_is_in_the_table_as_it_is(name: str) -> None:
    assert cell_of(name) == name


def test_an_earlier_table_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    for rows in ([CaseRow("a", "ok")], [CaseRow("b", "ok")]):
        write_results(rows, path)
    assert [row["case"] for row in csv.DictReader(io.StringIO(path.read_text()))] == ["b"]


def test_a_file_other_than_a_table_of_results_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("patient,age\n")
    with pytest.raises(OutputExistsError, match="is no table of results"):
        write_results([], path)
    assert path.read_text() == "patient,age\n"
