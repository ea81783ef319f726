"""Let the work continue when standard output or standard error is closed or full."""

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
    """A console, pipe or file that silently drops output once it can no longer be written to."""

    lost: OSError | None = None
    """The error of the first failed write, or None if none failed."""

    def write(self, content: Any) -> int:
        """Write or drop bytes. Returns the number of bytes accepted."""
        try:
            while self.lost is None:
                count = super().write(content)
                if count is not None:
                    return count
                # The stream is nonblocking and full, so wait until it is writable again.
                select.select([], [self], [])
        except OSError as error:
            self.lost = error
        return memoryview(content).nbytes


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Let the work inside the block continue even if nobody reads its output.

    A reader that closes the pipe (`| head -1`) has seen enough, which is not an error. If standard output is lost
    otherwise, such as on a full disk, a message on standard error says so, and the process exits with the code of
    `OutputError` if the work itself succeeded.
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
            print(f"cascade-rt: {reason}; the results were saved, but the printed output is incomplete", file=errors)
            raise SystemExit(OutputError.exit_code) from None
        raise
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before


def _lasting(stream: TextIO) -> TextIO:
    """Return the stream on top of a `LastingFile`, or unchanged if it is not a file, as in tests."""
    try:
        file = LastingFile(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return stream
    stream.flush()
    by_line = stream is sys.stderr or file.isatty()
    # Characters missing from the console's encoding are escaped: a name in another script must not end the work.
    return io.TextIOWrapper(
        io.BufferedWriter(file), encoding=stream.encoding, errors="backslashreplace", line_buffering=by_line
    )


def _lost(stream: TextIO) -> OSError | None:
    file = getattr(getattr(stream, "buffer", None), "raw", None)
    return file.lost if isinstance(file, LastingFile) else None


def _occupy_closed_descriptors() -> None:
    """Open closed standard streams on the null device.

    Otherwise an output file could get the descriptor of a standard stream, and printed text would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  open as long as we run
