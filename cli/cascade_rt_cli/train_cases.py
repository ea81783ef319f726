"""Training on the cases of a prepared store."""

from dataclasses import replace
from pathlib import Path

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.names import Dataset
from cascade_rt.data.slices import open_cases
from cascade_rt.data.split import read_split
from cascade_rt.errors import UsageError
from cascade_rt_cli.train_run import run_training

_TITLES: dict[Dataset, str] = {"msd": "MSD Task07 Pancreas", "nih": "NIH Pancreas-CT"}


def train_on_store(
    dataset: Dataset,
    store: Path | None,
    run: Path,
    cascade: CascadeConfig,
    config: TrainConfig,
    *,
    validate: int,
    init: Path | None,
    resume: bool,
) -> None:
    """Train on the training cases of a store's split. NIH has no tumours: there, both stages find the pancreas.

    Raises:
        UsageError: The store is not named, is not prepared, or holds another data set.
    """
    if store is None:
        raise UsageError(
            f"name the store to train on: cascade-rt train --dataset {dataset} STORE; "
            f"cascade-rt prepare --dataset {dataset} DATA -o STORE makes it"
        )
    split = read_split(store, dataset)
    if dataset == "nih":
        cascade = replace(cascade, target="organ")
        config = replace(config, slices="organ" if config.slices == "tumor" else config.slices, boundary_classes=2)
    data, cases = f"{_TITLES[dataset]}, {split}", open_cases(store, split.train)
    run_training(cases, run, cascade, config, data=data, validate=validate, init=init, resume=resume)
