"""The folder of a training run: whether it can be written, and what lies in it."""

import os
import tempfile
from pathlib import Path

from cascade_rt.errors import OutputError, OutputExistsError
from cascade_rt.training.checkpoint import FILE_NAME


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


def make_run_folder(run: Path) -> None:
    """Make the folder of a run where it is missing.

    Raises:
        OutputError: The system refuses.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be made ({error.strerror}); choose another folder") from error
