"""Train on the cases of a prepared store."""

from dataclasses import replace
from pathlib import Path

from cascade_rt.data.fingerprint import fingerprint
from cascade_rt.data.names import Dataset
from cascade_rt.data.slices import has_tumor, open_cases
from cascade_rt.data.split import read_split
from cascade_rt.errors import UsageError
from cascade_rt.training.spacing import with_spacing
from cascade_rt.training.validation import hold_out
from cascade_rt_cli.train_run import Plan, run_training
from cascade_rt_cli.verbosity import print_note

_TITLES: dict[Dataset, str] = {"msd": "MSD Task07 Pancreas", "nih": "NIH Pancreas-CT", "folder": "own scans"}


def train_on_store(dataset: Dataset, store: Path | None, plan: Plan) -> None:
    """Train on the training cases of a store's split.

    If no tumor is labeled and no synthetic tumors are made, both stages learn to find the pancreas.

    Raises:
        UsageError: No store is given, or it is not prepared, or it holds another data set.
    """
    if store is None:
        raise UsageError(
            f"name the store to train on: cascade-rt train --dataset {dataset} STORE; "
            f"cascade-rt prepare --dataset {dataset} DATA -o STORE makes it"
        )
    split = read_split(store, dataset)
    cases = open_cases(store, split.train)
    if not any(has_tumor(case) for case in cases):
        plan = _without_labelled_tumors(plan)
        if plan.workers.is_first and plan.cascade.target == "organ":
            print_note("no case has a tumor: stage 2 learns the pancreas too, and its loss is shown as tumor loss")
    trained_on, _ = hold_out(cases, plan.validate)
    plan = replace(plan, cascade=with_spacing(plan.cascade, trained_on))
    run_training(cases, f"{_TITLES[dataset]}, {split}, cases {fingerprint(store, split.train)}", plan)


def _without_labelled_tumors(plan: Plan) -> Plan:
    slices = "organ" if plan.config.slices == "tumor" else plan.config.slices
    plan = replace(plan, config=replace(plan.config, slices=slices))
    if plan.config.synthetic_tumors:
        return plan
    return replace(plan, cascade=replace(plan.cascade, target="organ"), config=replace(plan.config, boundary_classes=2))
