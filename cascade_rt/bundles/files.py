"""The files of a bundle: their names, how large they may be, and how they are read.

A file is used only as the bytes that were hashed: `BundleFile.read_bytes` reads it once, compares size and SHA-256 with
the manifest, and returns those very bytes. Nothing is unpacked, no symbolic link is followed, and files that are not
listed here are never opened. Hard links are read like any file, as package managers make them; the hash decides.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from cascade_rt.bundles.golden import GOLDEN_BYTES
from cascade_rt.common.hashing import FileRecord
from cascade_rt.common.plain_file import COPY_THE_FOLDER, NotAPlainFileError, open_plain_file
from cascade_rt.common.tensors import PRECISIONS, STAGES, Precision, Stage
from cascade_rt.errors import BundleError

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
WEIGHTS_NAME = "weights.safetensors"
GOLDEN_NAME = "golden.bin"


def graph_name(stage: Stage, precision: Precision = "fp32") -> str:
    """File name of a stage's ONNX graph."""
    return f"{stage}_{precision}.onnx"


FILE_NAMES = frozenset({*(graph_name(stage) for stage in STAGES), WEIGHTS_NAME, GOLDEN_NAME})
"""The files that every manifest lists."""
HALF_FILE_NAMES = frozenset(graph_name(stage, "fp16") for stage in STAGES)
"""Those that a manifest lists too where the bundle has graphs in half precision."""
GRAPH_NAMES = frozenset(graph_name(stage, precision) for stage in STAGES for precision in PRECISIONS)

MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES: Mapping[str, int] = {
    # The network of the paper, with a base width of 64, takes a quarter of either.
    **dict.fromkeys(GRAPH_NAMES, 1 << 30),
    WEIGHTS_NAME: 1 << 31,
    GOLDEN_NAME: GOLDEN_BYTES,
}
"""Largest size of each file, in bytes."""


@dataclass(frozen=True, slots=True)
class BundleFile(os.PathLike[str]):
    """A file of a bundle that is on disk."""

    path: Path
    record: FileRecord

    def __fspath__(self) -> str:
        """The path, for tools that look at bundles rather than run them; what they read there is not checked."""
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def read_bytes(self) -> bytes:
        """Read the file, and return only what was exported.

        Raises:
            BundleError: It is missing, a symbolic link or no plain file (`E_BUNDLE_FILE`), or its content is not the
                one in the manifest (`E_HASH`).
        """
        with self._opened() as file:
            # Before memory is taken: a manifest may promise more than there is.
            if os.fstat(file.fileno()).st_size != self.record.bytes:
                raise self._changed()
            content = file.read(self.record.bytes + 1)
        if len(content) != self.record.bytes or hashlib.sha256(content).hexdigest() != self.record.sha256:
            raise self._changed()
        return content

    def check(self) -> None:
        """Compare the file with the manifest without holding it in memory; raises like `read_bytes`."""
        with self._opened() as file:
            same_size = os.fstat(file.fileno()).st_size == self.record.bytes
            if not same_size or hashlib.file_digest(file, "sha256").hexdigest() != self.record.sha256:
                raise self._changed()

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        try:
            with open_plain_file(self.path) as file:
                yield file
        except FileNotFoundError as error:
            raise BundleError(
                f"{self.path}: is missing from the bundle; copy the bundle again", code="E_BUNDLE_FILE"
            ) from error
        except NotAPlainFileError as error:
            raise BundleError(
                f"{self.path}: {error}, and only plain files are read; {COPY_THE_FOLDER}",
                code="E_BUNDLE_FILE",
            ) from error
        except OSError as error:
            raise BundleError(
                f"{self.path}: cannot be read ({error.strerror}); check its permissions", code="E_BUNDLE_FILE"
            ) from error

    def _changed(self) -> BundleError:
        return BundleError(
            f"{self.path}: is not the file that was exported (its SHA-256 differs); copy the bundle again",
            code="E_HASH",
        )
