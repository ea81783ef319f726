"""`cascade-rt evaluate`: what it checks first, what it prints and writes, and how it fails."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.engines import EngineRequest, Engines
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.run.cascade import Cascade
from cascade_rt_cli.main import main
from tests.cohort_files import block, fake_cascade, save_cohort, save_labels, truncate

ORGAN, TUMOR = block((1, 2, 3)), block((1, 2, 3), label=2)
SOME_TUMOR = {"a": (TUMOR, TUMOR), "b": (ORGAN, ORGAN), "c": (TUMOR, ORGAN)}


class NamedEngine(FakeEngine):
    """A fake that says it runs on another backend."""

    def __init__(self, engine: FakeEngine, backend: str) -> None:
        super().__init__(engine.stage, engine._compute)
        self.info = replace(self.info, backend=backend)


def open_fake(bundle: Path | None, *, engines: EngineRequest, **_: object) -> Cascade:
    """A fake cascade whatever the bundle; as `pytorch` it takes pancreas for tumor too."""
    backend = engines.backend
    cascade = fake_cascade(tumor_from=0.5 if backend == "pytorch" else 0.75)
    stages = (NamedEngine(engine, backend) for engine in (cascade.engines.stage1, cascade.engines.stage2))
    return Cascade(cascade.bundle, Engines(*stages, passed_over=("backend 'best' is not here",)))


@pytest.fixture(autouse=True)
def fake_engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts fakes in the place of engines, but where a test asks for a bundle."""
    if "bundle" not in request.fixturenames:
        monkeypatch.setattr("cascade_rt.run.cascade.open_cascade", open_fake)


def evaluate(root: Path, *arguments: object) -> Result:
    folders = ["--images", root / "images", "--labels", root / "labels"]
    return CliRunner().invoke(main, ["evaluate", *map(str, [*folders, *arguments])], catch_exceptions=False)


def cells(result: Result) -> list[list[str]]:
    """The printed lines, split where two spaces or more are."""
    return [re.split(r" {2,}", line.strip()) for line in result.stdout.splitlines()]


# What is printed


def test_islands_are_not_dropped_from_scattered_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_strict(bundle: Path | None, *, engines: EngineRequest, **_: object) -> Cascade:
        cascade = open_fake(bundle, engines=engines)
        config = replace(cascade.bundle.manifest.config, islands="largest")
        manifest = replace(cascade.bundle.manifest, config=config)
        return Cascade(replace(cascade.bundle, manifest=manifest), cascade.engines)

    monkeypatch.setattr("cascade_rt.run.cascade.open_cascade", open_strict)
    apart = block((0, 2, 2), (0, 2, 3), (3, 6, 6), shape=(4, 8, 8))
    root = save_cohort(tmp_path, {"a": (apart, apart)})
    dice = []
    for options in ((), ("--scattered",)):
        assert (
            evaluate(root, "--bundle", "phantom", "-o", tmp_path / "report.json", "--overwrite", *options).exit_code
            == 0
        )
        report = json.loads((tmp_path / "report.json").read_text())
        dice.append(report["cases"][0]["organ_dice"])
    assert dice == [pytest.approx(4 / 5), 1.0]


def test_what_a_scan_does_not_say_can_be_said(tmp_path: Path) -> None:
    root = save_cohort(tmp_path, {"a": (ORGAN, ORGAN)})
    image = root / "images" / "a.nii.gz"
    voxels = np.asarray(nib.load(image).dataobj)
    nib.save(nib.Nifti1Image(voxels.astype(np.int16) + 1024, nib.load(image).affine), image)
    assert evaluate(root, "-o", tmp_path / "report.json", "--hu-offset", -1024).exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text())["cases"][0]["organ_dice"] == 1.0


def test_the_table_has_three_rows_for_each_target(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR))
    assert result.exit_code == 0
    assert cells(result)[:7] == [
        ["over", "Dice", "SEN", "SPE"],
        ["pancreas", "slices with it (3)", "1.000 ± 0.000", "1.000 ± 0.000", "1.000 ± 0.000"],
        ["cases with it (3)", "1.000 ± 0.000", "1.000 ± 0.000", "1.000 ± 0.000"],
        ["all voxels, pooled", "1.000", "1.000", "1.000"],
        ["tumor", "slices with it (1)", "1.000", "1.000", "1.000"],
        ["cases with it (1)", "1.000", "1.000", "1.000"],
        ["all voxels, pooled", "0.667", "1.000", "0.999"],
    ]


def test_over_all_slices_the_means_show_false_alarms(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR), "--slices", "all")
    assert ["tumor", "all slices (12)", "0.917 ± 0.289", "1.000", "0.999 ± 0.005"] in cells(result)
    assert "empty      tumor: 10 slices without it, in which none was found, count as Dice 1" in result.stdout
    assert "left out   tumor: 11 slices in which SEN is undefined" in result.stdout


def test_the_findings_are_reported_in_sentences(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR))
    assert "detected   tumor in 1 of 1 cases that have one" in result.stdout
    assert "false      tumor in 1 of 2 cases that have none, 0.00 ml in total" in result.stdout
    assert "crops      contain 100.00 % of the true tumor; none of it in 0 of 1 slices" in result.stdout


def test_labels_without_tumors_are_said_to_have_none(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, {"a": (TUMOR, ORGAN)}), "--bundle", "phantom")
    assert ["tumor", "not in the labels"] in cells(result)
    assert "detected" not in result.stdout


def test_in_a_pipe_the_table_is_at_most_80_columns_wide(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR), "--slices", "all")
    table = result.stdout.partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table


def test_engine_better_ones_not_taken_and_intended_use_are_printed(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR), "--backend", "onnxruntime")
    assert "engine     onnxruntime 1 on cpu, fp32" in result.stdout
    assert "           backend 'best' is not here" in result.stdout
    assert "Bundle fake: Tests only." in result.stdout


def test_a_baseline_is_compared_case_by_case(tmp_path: Path) -> None:
    cases = {"[bold]x": (TUMOR, TUMOR), "y": (ORGAN, TUMOR)}
    result = evaluate(save_cohort(tmp_path, cases), "--backend", "onnxruntime", "--baseline", "pytorch")
    sentence = "Dice engine minus baseline -0.50000 (95 % interval -1.00000 to +0.00000) over 2 cases, worst y -1.00000"
    assert f"baseline   tumor: {sentence}" in result.stdout
    assert "1 of 512 voxels have a different label (195.31 in 100,000)" in result.stdout
    assert "baseline   pytorch 1 on cpu, fp32" in result.stdout


def test_a_name_that_looks_like_markup_is_printed_as_it_is(tmp_path: Path) -> None:
    cases = {"[bold]x": (ORGAN, TUMOR), "y": (TUMOR, TUMOR)}
    result = evaluate(save_cohort(tmp_path, cases), "--baseline", "pytorch")
    assert "worst [bold]x -1.00000" in result.stdout


# What is written


def test_report_and_table_are_written_to_the_given_paths(tmp_path: Path) -> None:
    save_cohort(tmp_path, SOME_TUMOR)
    assert evaluate(tmp_path, "-o", tmp_path / "report.json", "--csv", tmp_path / "cases.csv").exit_code == 0
    assert len(json.loads((tmp_path / "report.json").read_text())["cases"]) == 3
    assert len((tmp_path / "cases.csv").read_text().splitlines()) == 4


def test_without_options_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_cohort(tmp_path / "data", SOME_TUMOR)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert evaluate(tmp_path / "data").exit_code == 0
    assert list((tmp_path / "here").iterdir()) == []


def test_a_scan_with_an_undecodable_name_is_evaluated(tmp_path: Path) -> None:
    save_cohort(tmp_path, {os.fsdecode(b"caf\xe9"): (ORGAN, TUMOR), "b": (TUMOR, TUMOR)})
    outputs = ("-o", tmp_path / "report.json", "--csv", tmp_path / "cases.csv")
    assert evaluate(tmp_path, *outputs, "--baseline", "pytorch").exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text())["cases"][1]["case"].startswith("caf")


# How it fails


@pytest.mark.parametrize("option", ["-o", "--csv"])
def test_an_existing_result_is_refused_before_any_work(option: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    save_cohort(tmp_path, {"a": (ORGAN, 3 * ORGAN)})
    result = evaluate(tmp_path, option, tmp_path / "mine")
    assert (result.exit_code, (tmp_path / "mine").read_text()) == (8, "mine")


def test_a_folder_that_cannot_be_written_to_is_found_before_any_work(tmp_path: Path) -> None:
    # Nobody can create files in /proc, not even root.
    result = evaluate(save_cohort(tmp_path, {"a": (ORGAN, 3 * ORGAN)}), "-o", "/proc/report.json")
    assert result.exit_code == 6
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_scan_or_a_label_is_never_overwritten(kind: str, tmp_path: Path) -> None:
    path = save_cohort(tmp_path, SOME_TUMOR) / kind / "a.nii.gz"
    before = path.read_bytes()
    result = evaluate(tmp_path, "-o", path, "--overwrite")
    assert (result.exit_code, "is an input and would be overwritten" in result.stderr) == (2, True)
    assert path.read_bytes() == before


def test_an_existing_result_is_replaced_if_requested(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR), "-o", tmp_path / "mine", "--overwrite")
    assert (result.exit_code, (tmp_path / "mine").read_text()[0]) == (0, "{")


def test_one_file_for_both_results_is_refused(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR), "-o", tmp_path / "x", "--csv", tmp_path / "x")
    assert (result.exit_code, "is used for two results" in result.stderr) == (2, True)


def test_one_file_for_both_results_is_refused_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path)
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR), "-o", tmp_path / "x", "--csv", tmp_path / "alias" / "x")
    assert (result.exit_code, "is used for two results" in result.stderr) == (2, True)


def test_results_are_saved_before_they_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the console is gone")

    monkeypatch.setattr("cascade_rt_cli.evaluate._print_evaluation", fail)
    with pytest.raises(RuntimeError, match="console"):
        evaluate(save_cohort(tmp_path, SOME_TUMOR), "-o", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())


def test_files_without_a_partner_are_refused_by_name(tmp_path: Path) -> None:
    save_cohort(tmp_path, SOME_TUMOR)
    (tmp_path / "labels" / "b.nii.gz").unlink()
    result = evaluate(tmp_path)
    assert (result.exit_code, result.stdout, "without a label: b" in result.stderr) == (4, "", True)


def test_an_unusable_label_is_refused_before_any_scan_is_segmented(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR | {"z": (ORGAN, 3 * ORGAN)}), "-o", tmp_path / "report.json")
    assert (result.exit_code, result.stdout, "contains label 3" in result.stderr) == (4, "", True)
    assert not (tmp_path / "report.json").exists()


def test_a_failed_case_is_named_and_the_others_have_results(tmp_path: Path) -> None:
    save_cohort(tmp_path, SOME_TUMOR)
    truncate(tmp_path / "images" / "b.nii.gz")
    result = evaluate(tmp_path, "-o", tmp_path / "report.json")
    assert result.exit_code == 3
    assert "1 of 3 cases failed" in result.stderr
    assert "b.nii.gz: the file is truncated" in result.stderr
    assert ["pancreas", "slices with it (2)", "1.000 ± 0.000", "1.000 ± 0.000", "1.000 ± 0.000"] in cells(result)
    assert len(json.loads((tmp_path / "report.json").read_text())["cases"]) == 2


def test_an_engine_is_not_its_own_baseline(tmp_path: Path) -> None:
    result = evaluate(save_cohort(tmp_path, SOME_TUMOR), "--backend", "pytorch", "--baseline", "pytorch")
    assert (result.exit_code, "the baseline is the engine itself (pytorch)" in result.stderr) == (2, True)


# With networks


def test_onnxruntime_agrees_with_its_pytorch_baseline(bundle: Bundle, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    hu = random.normal(40, 100, (3, 64, 64)).astype(np.int16)
    for name in ("a", "b"):
        save_labels(tmp_path / "images" / f"{name}.nii.gz", hu)
        save_labels(tmp_path / "labels" / f"{name}.nii.gz", random.choice(3, hu.shape).astype(np.uint8))
    options = ("--bundle", bundle.path, "--backend", "onnxruntime", "--baseline", "pytorch")
    result = evaluate(tmp_path, *options, "-o", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["provenance"]["engine"]["backend"] == "onnxruntime"
    assert report["baseline"]["engine"]["backend"] == "pytorch"
    assert report["baseline"]["different_voxels_per_100_000"] < 100
    assert abs(report["baseline"]["dice_difference"]["organ"]["mean"]) < 1e-3


def other_numbers(root: Path) -> Path:
    """Labels of which 6 is the pancreas, 9 its tumor and 3 something else."""
    for label in (root / "labels").iterdir():
        image = nib.load(label)
        numbers = np.array([0, 6, 9], dtype=np.uint8)[np.asarray(image.dataobj)]
        numbers[-1, -1, -1] = 3
        nib.save(nib.Nifti1Image(numbers, image.affine), label)
    return root


def test_labels_with_other_numbers_are_scored_as_they_are_named(tmp_path: Path) -> None:
    root = other_numbers(save_cohort(tmp_path, SOME_TUMOR))
    result = evaluate(root, "--organ", 6, "--tumor", 9, "-o", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    cases = json.loads((tmp_path / "report.json").read_text())["cases"]
    assert [case["organ_dice"] for case in cases] == [1.0, 1.0, 1.0]
    assert cases[0]["tumor_dice"] == 1.0


def test_labels_of_which_none_was_named_are_refused(tmp_path: Path) -> None:
    root = other_numbers(save_cohort(tmp_path, SOME_TUMOR))
    result = evaluate(root, "--organ", 7)
    assert result.exit_code == 4
    assert "none of them selected" in result.output


def test_a_label_that_cannot_be_used_is_named_without_its_folder(tmp_path: Path) -> None:
    ward = tmp_path / "DOE JOHN 1970"
    root = save_cohort(ward, {"odd": (ORGAN, 3 * ORGAN)})
    result = evaluate(root)
    assert result.exit_code == 4
    assert "odd.nii.gz: contains label 3" in result.output
    assert "1970" not in result.output
