"""Standard output and standard error, which may be closed or full while the work goes on."""

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cascade_rt.errors import OutputError


class LastingFile(io.FileIO):
    """A console, a pipe or a file: once it cannot be written to, what is written is dropped, and nothing is raised."""

    lost: OSError | None = None
    """What the system said when it could no longer be written to."""

    def write(self, content: Any) -> int:
        """Write bytes, or drop them; returns how many."""
        try:
            while self.lost is None:
                count = super().write(content)
                if count is not None:
                    return count
                # Whoever gave us the pipe does not want us to wait in the call itself.
                select.select([], [self], [])
        except OSError as error:
            self.lost = error
        return memoryview(content).nbytes


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Let the work inside go on where nobody reads what it prints.

    Whoever closes a pipe (`| head -1`) has seen enough, which is no error. Where standard output was lost otherwise,
    such as on a full disk, standard error says so, and the work that ended well ends with the code of `OutputError`.
    """
    _occupy_closed_descriptors()
    before = sys.stdout, sys.stderr
    output, errors = (_lasting(stream) for stream in before)
    sys.stdout, sys.stderr = output, errors
    try:
        yield
    except SystemExit as end:
        output.flush()
        lost = _lost(output)
        if lost is not None and lost.errno != errno.EPIPE and not end.code:
            reason = f"standard output cannot be written ({lost.strerror})"
            print(f"cascade-rt: {reason}: what was computed is there, what was printed is not", file=errors)
            raise SystemExit(OutputError.exit_code) from None
        raise
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before


def _lasting(stream: TextIO) -> TextIO:
    """The same stream on a file that lasts; itself where it is no file, such as that of a test."""
    try:
        file = LastingFile(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return stream
    stream.flush()
    by_line = stream is sys.stderr or file.isatty()
    # What the encoding of the console lacks is escaped: a name in another script is no reason to end the work.
    return io.TextIOWrapper(
        io.BufferedWriter(file), encoding=stream.encoding, errors="backslashreplace", line_buffering=by_line
    )


def _lost(stream: TextIO) -> OSError | None:
    file = getattr(getattr(stream, "buffer", None), "raw", None)
    return file.lost if isinstance(file, LastingFile) else None


def _occupy_closed_descriptors() -> None:
    """See to it that no result is opened under the number of a standard stream that is closed, and printed into."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  open as long as we run
