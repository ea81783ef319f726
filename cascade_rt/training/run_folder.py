"""The folder of a training run: whether it can be written, and what lies in it.

    RUN/checkpoint.safetensors    after the last epoch
    RUN/best.safetensors          after the epoch that did best on the validation cases
    RUN/log.csv                   the numbers of each epoch
    RUN/curves.png                the same as a picture

Each file is replaced in one step; the checkpoint alone decides where a run goes on.
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
    """Raise before any work begins where a run could not be kept; leaves no trace.

    Args:
        run: Folder of the run, which need not be there yet.
        resume: Whether it may hold a checkpoint.

    Raises:
        OutputError: It is no folder, or nothing can be written there.
        OutputExistsError: It holds a checkpoint, and `resume` is off.
    """
    check_folder(run)
    if not resume and (run / FILE_NAME).exists():
        raise OutputExistsError(f"{run}: holds a training run; continue it with `resume`, or name another folder")


def save_epoch(checkpoint: Checkpoint, run: Path) -> None:
    """Write what a run keeps of an epoch that is done, in its folder, which is made where it is missing.

    The best checkpoint goes first: a run that is killed in between does the epoch again, and writes the same.

    Raises:
        OutputError: The system refuses.
    """
    make_folder(run)
    if best_epoch(checkpoint.history) == checkpoint.epochs_done:
        save_checkpoint(checkpoint, run / BEST_NAME)
    save_checkpoint(checkpoint, run / FILE_NAME)
    rewrite_logs(checkpoint, run)


def rewrite_logs(checkpoint: Checkpoint, run: Path) -> None:
    """Write the log and the curves of a run anew from its checkpoint, so that they never say anything else.

    Raises:
        OutputError: The system refuses.
    """
    write_log(checkpoint.history, run / LOG_NAME)
    save_curves(checkpoint.history, run / CURVES_NAME)
