"""The process of a part: `python -m benchmarks.gpu.expedition.child PART RESULTS SETTINGS SECONDS`."""

import ctypes
import signal
import sys
from pathlib import Path

from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.expedition.parts import part_named
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.lines import Lines, describe_machine
from cascade_rt.engines.nvidia import Gpu, find_gpu
from cascade_rt.errors import BackendUnavailableError, CascadeError

_KILL_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""
_GRACE_SECONDS = 15.0
"""A part is to end by itself before it is killed, and to say what it left out."""


def main() -> None:
    """Do a part. An expected failure ends with one sentence, any other with its traceback."""
    name, results, settings_text, seconds = sys.argv[1:]
    deadline = Deadline.after(float(seconds) - _GRACE_SECONDS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_KILL_WITH_PARENT, signal.SIGKILL)
    settings = Settings.from_json(settings_text)
    try:
        run = part_named(name).load()
        lines = Lines(Path(results), {"part": name, **describe_machine(gpu_here(), settings.commit or None)})
        run(settings, lines.write, deadline)
    except CascadeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def gpu_here() -> Gpu | None:
    """The GPU of this machine, if it has one."""
    try:
        return find_gpu()
    except BackendUnavailableError:
        return None


if __name__ == "__main__":
    main()
