"""Run a training with a progress bar and one line per epoch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.slices import Case
from cascade_rt.training.checkpoint import FILE_NAME, Checkpoint
from cascade_rt.training.distributed import Workers
from cascade_rt.training.initial import join_stages, load_initial
from cascade_rt.training.loop import Progress, train
from cascade_rt.training.run_folder import BEST_NAME
from cascade_rt.training.validation import best_epoch, hold_out
from cascade_rt_cli.console import printable, progress_bar, results_console, shown, typed
from cascade_rt_cli.verbosity import print_note

_TITLES = {
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


def run_training(cases: Sequence[Case], data: str, plan: Plan) -> None:
    """Train on all cases but the held-out last ones, print the metrics of each epoch, and suggest the next command.

    Raises:
        UsageError: No case would be left to train on.
    """
    first = plan.workers.is_first
    console = results_console(shown=first)
    cases, validation = hold_out(cases, plan.validate)
    if first:
        print_note(f"training on {data}")
        if plan.resume and not (plan.run / FILE_NAME).is_file():
            print_note(f"{shown(plan.run)}: holds no checkpoint to go on from; the training starts from the beginning")
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
    run = printable(shown(plan.run))
    next_run = typed(plan.run, "RUN")
    console.print(f"{run}: {checkpoint.epochs_done} epochs done; next: cascade-rt export {next_run} -o BUNDLE")
    best = best_epoch(checkpoint.history)
    if best is not None:
        file = Path(next_run) / BEST_NAME
        console.print(f"best on validation: epoch {best}; to take it: cascade-rt export {file} -o BUNDLE")


@contextmanager
def _saying_how_to_go_on(plan: Plan) -> Iterator[None]:
    """If the run is stopped by Ctrl-C or SIGTERM, print how to resume it, or that no epoch was finished."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if plan.workers.is_first:
            kept = (plan.run / FILE_NAME).is_file()
            words = "the same command with --resume goes on after its last epoch" if kept else "no epoch was done yet"
            print_note(f"{shown(plan.run)}: the training was stopped; {words}")
        raise


def _initial(plan: Plan) -> Checkpoint | None:
    if plan.init is None:
        return None
    initial = load_initial(plan.init)
    return initial if plan.init_stage2 is None else join_stages(initial, load_initial(plan.init_stage2))


def _print_epoch(console: Console, entry: dict[str, float | str]) -> None:
    numbers = (f"{title} {entry[name]:.4f}" for name, title in _TITLES.items() if name in entry)
    console.print(f"epoch {entry['epoch']} {entry['step']}: {', '.join(numbers)}")
