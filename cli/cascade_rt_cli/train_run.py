"""Train on phantoms or on a prepared store, with a progress bar and one line per epoch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.fingerprint import fingerprint
from cascade_rt.data.names import Dataset
from cascade_rt.data.phantom_store import describe_phantoms, prepare_phantoms
from cascade_rt.data.slices import Case, has_tumor, open_cases
from cascade_rt.data.split import FILE_NAME as SPLIT_NAME
from cascade_rt.data.split import read_split
from cascade_rt.errors import UsageError
from cascade_rt.training.checkpoint import FILE_NAME as CHECKPOINT_NAME
from cascade_rt.training.checkpoint import Checkpoint
from cascade_rt.training.distributed import Workers
from cascade_rt.training.initial import join_stages, load_initial
from cascade_rt.training.loop import Progress, train
from cascade_rt.training.run_folder import BEST_NAME
from cascade_rt.training.spacing import with_spacing
from cascade_rt.training.validation import best_epoch, hold_out
from cascade_rt_cli.console import progress_bar, results_console
from cascade_rt_cli.messages import printable, shown, typed
from cascade_rt_cli.output import print_note

_DATASETS: dict[Dataset, str] = {"msd": "MSD Task07 Pancreas", "nih": "NIH Pancreas-CT", "folder": "own scans"}
_METRICS = {
    "organ_loss": "organ loss",
    "tumor_loss": "tumor loss",
    "boundary_loss": "boundary loss",
    "organ_dice": "organ Dice",
    "tumor_dice": "tumor Dice",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The training options that do not depend on the cases."""

    run: Path
    cascade: CascadeConfig
    config: TrainConfig
    validate: int
    """Number of cases to hold out for validation."""
    init: Path | None
    """Checkpoint to start from."""
    init_stage2: Path | None
    """Checkpoint to take stage 2 from instead of from `init`."""
    resume: bool
    workers: Workers


def train_on_phantoms(store: Path, seeds: Sequence[int], shape: tuple[int, int, int], plan: Plan) -> None:
    """Make any missing phantoms and train on them.

    Raises:
        UsageError: The folder is a store made by `cascade-rt prepare`.
    """
    if (store / SPLIT_NAME).exists():
        raise UsageError(
            f"{store}: is a store made by cascade-rt prepare; say what it holds: cascade-rt train --dataset "
            "msd|nih|folder STORE"
        )
    with plan.workers.first_before_others(), progress_bar(shown=plan.workers.is_first) as bars:
        making = bars.add_task("phantoms", total=len(seeds))
        names = prepare_phantoms(store, seeds, shape, on_case=lambda _: bars.advance(making))
    _train(open_cases(store, names), describe_phantoms(seeds, shape), plan)


def train_on_store(dataset: Dataset, store: Path | None, plan: Plan) -> None:
    """Train on the training cases of a store's split.

    If no tumor is labeled and no synthetic tumors are made, both stages learn to find the pancreas.

    Raises:
        UsageError: No store is given, or it is not prepared, or it holds another data set.
    """
    if store is None:
        raise UsageError(
            f"the store to train on is missing; run: cascade-rt train --dataset {dataset} STORE; "
            f"make it with: cascade-rt prepare --dataset {dataset} DATA -o STORE"
        )
    split = read_split(store, dataset)
    cases = open_cases(store, split.train)
    if not any(has_tumor(case) for case in cases):
        plan = _without_labelled_tumors(plan)
        if plan.workers.is_first and plan.cascade.target == "organ":
            print_note("no case has a tumor: stage 2 learns the pancreas too, and its loss is shown as tumor loss")
    trained_on, _ = hold_out(cases, plan.validate)
    plan = replace(plan, cascade=with_spacing(plan.cascade, trained_on))
    _train(cases, f"{_DATASETS[dataset]}, {split}, cases {fingerprint(store, split.train)}", plan)


def _without_labelled_tumors(plan: Plan) -> Plan:
    slices = "organ" if plan.config.slices == "tumor" else plan.config.slices
    plan = replace(plan, config=replace(plan.config, slices=slices))
    if plan.config.synthetic_tumors:
        return plan
    return replace(plan, cascade=replace(plan.cascade, target="organ"), config=replace(plan.config, boundary_classes=2))


def _train(cases: Sequence[Case], data: str, plan: Plan) -> None:
    """Train on all cases but the held-out last ones, print the metrics of each epoch, and suggest the next command.

    Raises:
        UsageError: No case would be left to train on.
    """
    first = plan.workers.is_first
    console = results_console(shown=first)
    cases, validation = hold_out(cases, plan.validate)
    if first:
        print_note(f"training on {data}")
        if plan.resume and not (plan.run / CHECKPOINT_NAME).is_file():
            print_note(f"{shown(plan.run)}: has no checkpoint to resume from; training starts from the beginning")
    with _saying_how_to_go_on(plan), progress_bar(shown=first) as bars:
        bar = bars.add_task("training", total=None)

        def show(progress: Progress) -> None:
            text = f"epoch {progress.epoch + 1}/{progress.epochs} {progress.step}"
            losses = (
                f"organ {progress.organ_loss:.3f} tumor {progress.tumor_loss:.3f} boundary {progress.boundary_loss:.4f}"
            )
            bars.update(bar, description=f"{text}  {losses}", total=progress.batches, completed=progress.batch)

        checkpoint = train(
            cases,
            plan.run,
            plan.cascade,
            plan.config,
            data=data,
            initial=_initial(plan),
            resume=plan.resume,
            validation=validation,
            workers=plan.workers,
            on_start=lambda start: print_note(str(start)) if first else None,
            on_batch=show,
            on_epoch=lambda entry: _print_epoch(console, entry),
        )
    _print_next(console, plan.run, checkpoint)


def _print_next(console: Console, folder: Path, checkpoint: Checkpoint) -> None:
    run = typed(folder, "RUN")
    done = f"{printable(shown(folder))}: {checkpoint.epochs_done} epochs done"
    console.print(f"{done}; next: cascade-rt export {run} -o BUNDLE")
    best = best_epoch(checkpoint.history)
    if best is not None:
        file = Path(run) / BEST_NAME
        console.print(f"best on validation: epoch {best}; to use it: cascade-rt export {file} -o BUNDLE")


@contextmanager
def _saying_how_to_go_on(plan: Plan) -> Iterator[None]:
    """If the run is stopped by Ctrl-C or SIGTERM, print how to resume it, or that no epoch was finished."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if plan.workers.is_first:
            kept = (plan.run / CHECKPOINT_NAME).is_file()
            words = "to continue, run the same command with --resume" if kept else "no epoch was finished"
            print_note(f"{shown(plan.run)}: training was stopped; {words}")
        raise


def _initial(plan: Plan) -> Checkpoint | None:
    if plan.init is None:
        return None
    initial = load_initial(plan.init)
    return initial if plan.init_stage2 is None else join_stages(initial, load_initial(plan.init_stage2))


def _print_epoch(console: Console, entry: dict[str, float | str]) -> None:
    numbers = (f"{title} {entry[name]:.4f}" for name, title in _METRICS.items() if name in entry)
    console.print(f"epoch {entry['epoch']} {entry['step']}: {', '.join(numbers)}")
