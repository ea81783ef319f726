"""A store without tumors, trained on with synthetic ones."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cascade_rt.training.checkpoint import load_checkpoint
from cascade_rt_cli.main import main
from tests.data_trees import nih_tree


def cascade_rt(*arguments: object) -> None:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nih")
    data, labels = nih_tree(folder / "data", (1, 2))
    cascade_rt("prepare", "--dataset", "nih", data, "--labels", labels, "-o", folder / "store")
    return folder / "store"


@pytest.mark.parametrize(("share", "target"), [(0.0, "organ"), (0.5, "tumor")])
def test_stage_2_looks_for_tumors_if_synthetic_ones_are_made(
    store: Path, tmp_path: Path, share: float, target: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f"[train]\nsynthetic_tumors = {share}\nepochs = [1, 0, 0]\npatch = 64\nbatch_size = 8\n"
        "[cascade]\nbase_width = 8\n"
    )
    cascade_rt("train", "--dataset", "nih", store, "-o", tmp_path / "run", "--config", config)
    assert load_checkpoint(tmp_path / "run").cascade.target == target
