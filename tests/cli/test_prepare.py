"""`prepare`, then `train` on the training cases of its split."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.data.slices import open_cases
from cascade_rt.data.split import read_split
from cascade_rt.training.checkpoint import load_checkpoint
from cascade_rt_cli.main import main
from tests.data.test_folder import write_pairs
from tests.data_trees import anatomy, msd_tree, nih_tree, write_nifti

SMALL = ("--base-width", 8, "--epochs", 1, 0, 0)


def cascade_rt(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def msd_store(tmp_path: Path) -> Path:
    result = cascade_rt("prepare", "--dataset", "msd", msd_tree(tmp_path / "data"), "-o", tmp_path / "store")
    assert result.exit_code == 0, result.output
    return tmp_path / "store"


@pytest.fixture
def nih_store(tmp_path: Path) -> Path:
    data, labels = nih_tree(tmp_path)
    result = cascade_rt("prepare", "--dataset", "nih", data, "--labels", labels, "-o", tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert "labels flipped along: y (3)" in result.output
    return tmp_path / "store"


def test_prepare_says_what_it_did_and_what_comes_next(tmp_path: Path) -> None:
    command = ("prepare", "--dataset", "msd", msd_tree(tmp_path / "data"), "-o", tmp_path / "store", "--seed", 4)
    lines = cascade_rt(*command).output.splitlines()
    assert "cases      3 converted, 0 already there" in lines
    assert "split      2 training and 1 test cases, split seed 4" in lines
    assert lines[-1] == "next: cascade-rt train --dataset msd STORE -o RUN"
    assert "cases      0 converted, 3 already there" in cascade_rt(*command).output


def test_what_comes_next_names_a_store_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("prepare", "--dataset", "msd", msd_tree(tmp_path / "data"), "-o", tmp_path / "stores" / "msd")
    lines = cascade_rt(*command).output.splitlines()
    assert lines[-1] == f"next: cascade-rt train --dataset msd {Path('stores', 'msd')} -o RUN"


def test_prepare_and_train_name_no_folder_outside_the_working_folder(tmp_path: Path) -> None:
    ward = tmp_path / "DOE JOHN 19551224"
    ward.mkdir()
    prepared = cascade_rt("prepare", "--dataset", "msd", msd_tree(ward / "data"), "-o", ward / "store")
    trained = cascade_rt("train", "--dataset", "msd", ward / "store", "-o", ward / "run", *SMALL)
    assert (prepared.exit_code, trained.exit_code) == (0, 0), trained.output
    assert "run: 1 epochs done; next: cascade-rt export RUN -o BUNDLE" in trained.output
    for printed in (prepared.output, trained.output):
        assert "DOE" not in printed
        assert "19551224" not in printed


def test_prepare_names_files_without_their_folders(tmp_path: Path) -> None:
    ward = tmp_path / "the ward" / "DOE JOHN 19551224"
    images, labels = write_pairs(ward, ("a", "b"))
    data = msd_tree(ward / "msd")
    write_nifti(data / "imagesTr" / "pancreas_009.nii.gz", anatomy()[0])
    (labels / "b.nii.gz").write_bytes(b"")
    named = ("--images", images, "--labels", labels)
    refused = cascade_rt("prepare", "--dataset", "folder", *named, "-o", tmp_path / "one")
    warned = cascade_rt("prepare", "--dataset", "msd", data, "-o", tmp_path / "two")
    assert "case b: b.nii.gz: the file is empty" in refused.stderr
    assert "1 scans are not in dataset.json" in warned.output
    for printed in (refused.output, refused.stderr, warned.output):
        assert "DOE" not in printed
        assert "ward" not in printed


def test_training_takes_the_training_cases(msd_store: Path, tmp_path: Path) -> None:
    for name in read_split(msd_store, "msd").test:
        (msd_store / name / "image.npy").unlink()
    result = cascade_rt("train", "--dataset", "msd", msd_store, "-o", tmp_path / "run", *SMALL)
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(tmp_path / "run")
    words = r"MSD Task07 Pancreas, 2 training and 1 test cases, split seed 0, cases [0-9a-f]{12}"
    assert re.fullmatch(words, checkpoint.data)
    assert checkpoint.cascade.target == "tumor"


def test_on_nih_both_stages_find_the_pancreas(nih_store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = cascade_rt("train", "--dataset", "nih", nih_store, "-o", run, "--preset", "paper", *SMALL)
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(run)
    assert (checkpoint.cascade.target, checkpoint.train.slices) == ("organ", "organ")
    assert checkpoint.train.boundary_classes == 2


def test_training_on_an_unprepared_folder_points_to_prepare(tmp_path: Path) -> None:
    result = cascade_rt("train", "--dataset", "msd", msd_tree(tmp_path / "data"), "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "run: cascade-rt prepare --dataset msd DATA -o STORE" in result.output
    assert not (tmp_path / "run").exists()


def test_training_without_a_store_asks_for_it(tmp_path: Path) -> None:
    result = cascade_rt("train", "--dataset", "nih", "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "the store to train on is missing" in result.output


def test_a_flip_is_refused_for_msd(tmp_path: Path) -> None:
    data = msd_tree(tmp_path / "data")
    result = cascade_rt("prepare", "--dataset", "msd", data, "-o", tmp_path / "store", "--label-flip", "y")
    assert result.exit_code == 2
    assert "--label-flip is for nih" in result.output


def windowed(path: Path) -> Path:
    """Give a scan the numbers of a picture, which are refused with a hint at an option."""
    _, label = anatomy()
    return write_nifti(path, (label * 100).astype(np.int16))


def test_the_option_suggested_for_a_refused_msd_scan_exists(tmp_path: Path) -> None:
    data = msd_tree(tmp_path / "data")
    windowed(data / "imagesTr" / "pancreas_004.nii.gz")
    command = ("prepare", "--dataset", "msd", data, "-o", tmp_path / "store")
    refused = cascade_rt(*command, "--scattered")
    assert (refused.exit_code, "override with --assume-hu" in refused.stderr) == (3, True)
    insisted = cascade_rt(*command, "--scattered", "--assume-hu")
    assert insisted.exit_code == 0, insisted.output
    (case,) = open_cases(tmp_path / "store", ["pancreas_004"])
    assert case.scattered


def test_a_scan_of_nih_in_nifti_is_read_as_asked(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path)
    shutil.rmtree(data)
    for number in (1, 2, 3):
        windowed(data / f"PANCREAS_{number:04d}.nii.gz")
    command = ("prepare", "--dataset", "nih", data, "--labels", labels, "-o", tmp_path / "store", "--label-flip", "y")
    assert "override with --assume-hu" in cascade_rt(*command).stderr
    insisted = cascade_rt(*command, "--assume-hu")
    assert insisted.exit_code == 0, insisted.output


def test_how_a_dicom_series_is_read_is_not_to_be_chosen(tmp_path: Path) -> None:
    data, labels = nih_tree(tmp_path)
    command = ("prepare", "--dataset", "nih", data, "--labels", labels, "-o", tmp_path / "store", "--hu-offset", 7)
    result = cascade_rt(*command)
    assert (result.exit_code, "is DICOM, which takes no reading options" in result.stderr) == (2, True)


def test_a_bad_case_is_one_sentence_with_the_code_of_bad_input(tmp_path: Path) -> None:
    data = msd_tree(tmp_path / "data")
    (data / "labelsTr" / "pancreas_004.nii.gz").unlink()
    result = cascade_rt("prepare", "--dataset", "msd", data, "-o", tmp_path / "store")
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1].startswith(
        "cascade-rt: error[E_INPUT]: case pancreas_004: has no label in labelsTr; copy it there"
    )


def test_scans_of_ones_own_are_prepared_and_trained_on(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data")
    store, run = tmp_path / "store", tmp_path / "run"
    named = ("--images", images, "--labels", labels, "--organ", 6, "--patients", r"p\d", "--scattered")
    result = cascade_rt("prepare", "--dataset", "folder", *named, "-o", store)
    assert result.exit_code == 0, result.output
    assert "next: cascade-rt train --dataset folder STORE -o RUN" in result.output
    result = cascade_rt("train", "--dataset", "folder", store, "-o", run, "--preset", "paper", *SMALL)
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(run)
    found = checkpoint.cascade.target, checkpoint.train.slices, checkpoint.train.boundary_classes
    assert found == ("organ", "organ", 2)


def test_stage_2_looks_for_tumors_if_labels_have_them(tmp_path: Path) -> None:
    images, labels = write_pairs(tmp_path / "data")
    store, run = tmp_path / "store", tmp_path / "run"
    named = ("--images", images, "--labels", labels, "--organ", 6, "--tumor", 9)
    assert cascade_rt("prepare", "--dataset", "folder", *named, "-o", store).exit_code == 0
    assert cascade_rt("train", "--dataset", "folder", store, "-o", run, *SMALL).exit_code == 0
    assert load_checkpoint(run).cascade.target == "tumor"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "folder", "--images", "a"), "pass the scans and labels with --images and --labels"),
        (("--dataset", "folder", "data", "--images", "a", "--labels", "b"), "--dataset folder takes no DATA"),
        (("--dataset", "msd"), "DATA is missing; run: cascade-rt prepare"),
        (("--dataset", "nih", "data", "--organ", 6), "are for folder, not nih"),
        (("--dataset", "msd", "data", "--tumor", 2), "are for folder, not msd"),
    ],
)
def test_options_of_another_data_set_are_refused(arguments: tuple[object, ...], message: str, tmp_path: Path) -> None:
    result = cascade_rt("prepare", *arguments, "-o", tmp_path / "store")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
