"""A training run, with its progress bar and a line for each epoch."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.slices import Case
from cascade_rt.training.checkpoint import load_checkpoint
from cascade_rt.training.loop import Progress, train
from cascade_rt.training.run_folder import BEST_NAME
from cascade_rt.training.validation import best_epoch, hold_out
from cascade_rt_cli.console import progress_bar, results_console

_TITLES = {
    "organ_loss": "organ loss",
    "tumor_loss": "tumour loss",
    "boundary_loss": "boundary loss",
    "organ_dice": "organ Dice",
    "tumor_dice": "tumour Dice",
}


def run_training(
    cases: Sequence[Case],
    run: Path,
    cascade: CascadeConfig,
    config: TrainConfig,
    *,
    data: str,
    validate: int,
    init: Path | None,
    resume: bool,
) -> None:
    """Train on cases but the last few, print the numbers of each epoch, and say what comes next.

    Raises:
        UsageError: No case would be left to train on.
    """
    console = results_console()
    cases, validation = hold_out(cases, validate)
    with progress_bar() as bars:
        bar = bars.add_task("training", total=None)

        def show(progress: Progress) -> None:
            text = f"epoch {progress.epoch + 1}/{progress.epochs} {progress.step}"
            losses = (
                f"organ {progress.organ_loss:.3f} tumour {progress.tumor_loss:.3f} "
                f"boundary {progress.boundary_loss:.4f}"
            )
            bars.update(bar, description=f"{text}  {losses}", total=progress.batches, completed=progress.batch)

        checkpoint = train(
            cases,
            run,
            cascade,
            config,
            data=data,
            initial=None if init is None else load_checkpoint(init),
            resume=resume,
            validation=validation,
            on_batch=show,
            on_epoch=lambda entry: _print_epoch(console, entry),
        )
    console.print(f"{run}: {checkpoint.epochs_done} epochs done; next: cascade-rt export {run} -o BUNDLE")
    best = best_epoch(checkpoint.history)
    if best is not None:
        console.print(f"best on validation: epoch {best}; to take it: cascade-rt export {run / BEST_NAME} -o BUNDLE")


def _print_epoch(console: Console, entry: dict[str, float | str]) -> None:
    numbers = (f"{title} {entry[name]:.4f}" for name, title in _TITLES.items() if name in entry)
    console.print(f"epoch {entry['epoch']} {entry['step']}: {', '.join(numbers)}")
