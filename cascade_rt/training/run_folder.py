"""The folder of a training run: whether it can be written, and what lies in it.

    RUN/checkpoint.safetensors    after the last epoch
    RUN/best.safetensors          after the epoch that did best on the validation cases
    RUN/log.csv                   the numbers of each epoch
    RUN/curves.png                the same as a picture

Each file is replaced in one step; the checkpoint alone decides where a run goes on.
"""

import os
import tempfile
from pathlib import Path

from cascade_rt.errors import OutputError, OutputExistsError
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
    nearest = next(path for path in (run, *run.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise OutputError(f"{nearest}: is not a folder; name another one for the run")
    try:
        # Tried, not asked: permission bits say nothing of read-only and full file systems.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OutputError(f"{nearest}: cannot be written ({error.strerror}); choose another folder") from error
    if not resume and (run / FILE_NAME).exists():
        raise OutputExistsError(f"{run}: holds a training run; go on with --resume, or name another folder")


def keep(checkpoint: Checkpoint, run: Path) -> None:
    """Write what a run keeps of an epoch that is done, in its folder, which is made where it is missing.

    The best checkpoint goes first: a run that is killed in between does the epoch again, and writes the same.

    Raises:
        OutputError: The system refuses.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be made ({error.strerror}); choose another folder") from error
    if best_epoch(checkpoint.history) == checkpoint.epochs_done:
        save_checkpoint(checkpoint, run / BEST_NAME)
    save_checkpoint(checkpoint, run / FILE_NAME)
    show(checkpoint, run)


def show(checkpoint: Checkpoint, run: Path) -> None:
    """Write the log and the curves of a run anew from its checkpoint, so that they never say anything else.

    Raises:
        OutputError: The system refuses.
    """
    write_log(checkpoint.history, run / LOG_NAME)
    save_curves(checkpoint.history, run / CURVES_NAME)
