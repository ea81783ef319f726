"""The folder of a training run: check that it can be written, and write its files.

    RUN/checkpoint.safetensors    after the last epoch
    RUN/best.safetensors          after the epoch with the best validation Dice
    RUN/log.csv                   the metrics of each epoch
    RUN/curves.png                plots of these metrics

Each file is replaced atomically. The checkpoint alone decides where a run resumes.
"""

from pathlib import Path

from cascade_rt.common.outputs import check_folder, make_folder
from cascade_rt.errors import OutputExistsError
from cascade_rt.training.checkpoint import FILE_NAME, Checkpoint, save_checkpoint
from cascade_rt.training.curves import save_curves
from cascade_rt.training.log import write_log
from cascade_rt.training.validation import best_epoch

BEST_NAME = "best.safetensors"
LOG_NAME = "log.csv"
CURVES_NAME = "curves.png"


def check_run_folder(run: Path, *, resume: bool) -> None:
    """Check, before any work begins, that a run can be saved. Leaves no trace.

    Args:
        run: Folder of the run, which need not exist yet.
        resume: Whether the folder may hold a checkpoint.

    Raises:
        OutputError: The path is not a folder, or is not writable.
        OutputExistsError: The folder holds a checkpoint and `resume` is off.
    """
    check_folder(run)
    if not resume and (run / FILE_NAME).exists():
        raise OutputExistsError(f"{run}: contains a training run; continue it with `resume`, or choose another folder")


def save_epoch(checkpoint: Checkpoint, run: Path) -> None:
    """Save a finished epoch in the run folder, which is created if missing.

    The best checkpoint is written first: if the run is killed in between, it repeats the epoch and writes the same.

    Raises:
        OutputError: A file cannot be written.
    """
    make_folder(run)
    if best_epoch(checkpoint.history) == checkpoint.epochs_done:
        save_checkpoint(checkpoint, run / BEST_NAME)
    save_checkpoint(checkpoint, run / FILE_NAME)
    rewrite_logs(checkpoint, run)


def rewrite_logs(checkpoint: Checkpoint, run: Path) -> None:
    """Rewrite the log and the curves of a run from its checkpoint, so that they always agree with it.

    Raises:
        OutputError: A file cannot be written.
    """
    write_log(checkpoint.history, run / LOG_NAME)
    save_curves(checkpoint.history, run / CURVES_NAME)
