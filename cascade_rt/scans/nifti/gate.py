"""Map the exceptions that a bad file causes to a one-sentence `InputError` with a code."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
from isal import isal_zlib

from cascade_rt.errors import InputError

_DAMAGED = ("E_CORRUPT", "its compressed data are damaged; copy it again")
_REASONS: dict[type[Exception], tuple[str, str]] = {
    EOFError: ("E_TRUNCATED", "the file is truncated; copy it again"),
    cast("type[Exception]", isal_zlib.error): _DAMAGED,
    zlib.error: _DAMAGED,
    gzip.BadGzipFile: _DAMAGED,
    FileNotFoundError: ("E_NOT_FOUND", "the file does not exist; check the path"),
    OSError: ("E_READ", "the file cannot be read ({error}); check its permissions and the disk"),
    MemoryError: ("E_TOO_LARGE", "the image does not fit in memory; crop it or use a larger machine"),
}


class RejectedFile(Exception):  # noqa: N818  becomes an error only when the gate adds the file name
    """The reason a file is unusable: a code and a sentence without the file name."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@contextmanager
def input_gate(shown: str) -> Iterator[None]:
    """Turn exceptions caused by a bad file into an `InputError` that names the file as `shown`. Bugs pass through.

    numpy floating-point warnings are suppressed, because results computed from a damaged file are checked instead.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except RejectedFile as refusal:
        raise InputError(f"{shown}: {refusal}", code=refusal.code) from refusal.__cause__
    except tuple(_REASONS) as error:
        code, sentence = next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
        cause = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shown}: {sentence.format(error=cause)}", code=code) from error
