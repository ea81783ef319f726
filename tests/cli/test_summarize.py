"""`cascade-rt summarize`, and the summary that `infer` prints at the end of a cohort."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.run.cohort.journal import Journal, journal_path
from cascade_rt_cli.main import main
from tests.cohort_files import HU, save_labels
from tests.cohort_runs import save_scan


@pytest.fixture(autouse=True)
def cohort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One scan with pancreas, three without, one that cannot be read; no networks."""

    def open_engines(*_: object) -> Engines:
        return Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))

    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", open_engines)
    monkeypatch.chdir(tmp_path)
    nothing = HU[np.zeros((6, 8, 8), dtype=np.uint8)]
    nothing[:, :, ::2] = 40
    for number in range(3):
        save_labels(Path("in", f"nothing{number}.nii.gz"), nothing)
    save_scan(Path("in", "good.nii.gz"))
    Path("in", "bad.nii.gz").write_bytes(b"")


def cascade_rt(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def infer(*arguments: str) -> Result:
    return cascade_rt("infer", "in", "-o", "out", "--bundle", "phantom", *arguments)


def cases_of(path: str) -> list[str]:
    with Path(path).open(newline="") as file:
        return [row["case"] for row in csv.DictReader(file)]


def test_empty_masks_are_counted_apart_at_the_end_of_a_run() -> None:
    printed = infer().stdout
    assert "5 scans: 1 with pancreas, 3 without, 1 failed\n" in printed
    assert "no pancreas found" in printed
    assert "1 with E_EMPTY" in printed


def test_warnings_are_counted_by_code_at_the_end_of_a_run() -> None:
    infer()
    reports = [json.loads(path.read_text()) for path in Path("out").glob("*.json")]
    code = reports[0]["warnings"][0]["code"]
    count = sum(code in {warning["code"] for warning in report["warnings"]} for report in reports)
    assert f"{count} with {code}\n" in infer("--resume").stdout


def test_a_resumed_run_counts_what_earlier_runs_found() -> None:
    infer()
    printed = infer("--resume").stdout
    assert "5 scans: 1 with pancreas, 3 without, 1 failed\n" in printed
    assert "already done" in printed


def test_the_json_summary_of_a_run_counts_by_status_and_code() -> None:
    lines = [json.loads(line) for line in infer("--log-format", "json").stdout.splitlines()]
    summary = next(line for line in lines if line["event"] == "summary")
    assert (summary["total"], summary["done"], summary["failed"]) == (5, 4, 1)
    assert (summary["statuses"]["no_organ"], summary["errors"]) == (3, {"E_EMPTY": 1})


def test_a_run_writes_its_table() -> None:
    infer()
    assert cases_of("out/results.csv") == ["bad", "good", "nothing0", "nothing1", "nothing2"]


def test_shards_write_tables_of_their_own_and_summarize_one_of_all() -> None:
    for part in ("0/2", "1/2"):
        infer("--shard", part)
    parts = [cases_of(f"out/results.{part}-of-2.csv") for part in (0, 1)]
    assert not Path("out", "results.csv").exists()
    assert cascade_rt("summarize", "out").exit_code == 0
    assert cases_of("out/results.csv") == sorted(parts[0] + parts[1])


def test_a_foreign_results_csv_is_refused_before_the_run() -> None:
    Path("out").mkdir()
    Path("out", "results.csv").write_text("patient,age\n")
    result = infer()
    assert (result.exit_code, "results.csv: exists and is no table" in result.stderr) == (8, True)
    assert [path.name for path in Path("out").iterdir()] == ["results.csv"]


def test_the_summary_has_volumes_and_names_cases_by_error() -> None:
    infer()
    printed = cascade_rt("summarize", "out").stdout
    assert printed.startswith("out: 5 scans: 1 with pancreas, 3 without, 1 failed\n")
    assert "median" in printed
    assert "E_EMPTY: 1 scans: bad\n" in printed


def test_the_summary_as_csv_is_the_table() -> None:
    infer()
    printed = cascade_rt("summarize", "out", "--format", "csv").stdout
    assert printed.splitlines() == Path("out", "results.csv").read_text().splitlines()


def test_the_summary_as_json_has_counts_volumes_and_rows() -> None:
    infer()
    found = json.loads(cascade_rt("summarize", "out", "--format", "json").stdout)
    (volume,) = (row["pancreas_ml"] for row in found["rows"] if row["pancreas_ml"])
    expected = {"count": 1, "lower_quartile": volume, "median": volume, "upper_quartile": volume}
    assert (found["cases"], found["volumes_ml"]["pancreas"], found["errors"]) == (5, expected, {"E_EMPTY": ["bad"]})


def test_the_table_can_be_written_elsewhere() -> None:
    infer()
    Path("out", "results.csv").unlink()
    cascade_rt("summarize", "out", "-o", "elsewhere.csv")
    assert (len(cases_of("elsewhere.csv")), Path("out", "results.csv").exists()) == (5, False)


def test_a_cohort_can_be_summarized_while_a_run_holds_its_journal() -> None:
    infer()
    with Journal(Path("out")):
        assert cascade_rt("summarize", "out").exit_code == 0


def test_a_folder_without_a_journal_is_refused_by_summarize() -> None:
    result = cascade_rt("summarize", "in")
    assert (result.exit_code, "in: has no journal" in result.stderr) == (2, True)
    assert not Path("in", "results.csv").exists()


def test_a_damaged_journal_is_refused_with_a_sentence() -> None:
    infer()
    journal_path(Path("out")).write_text("garbage\ngarbage\n")
    result = cascade_rt("summarize", "out")
    assert (result.exit_code, "error[E_JOURNAL]" in result.stderr) == (6, True)
