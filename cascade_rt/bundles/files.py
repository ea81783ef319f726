"""The files of a bundle: names, size limits and reading.

Only verified bytes are used: `BundleFile.read_bytes` reads a file once, compares size and SHA-256 with the manifest,
and returns those same bytes. Nothing is unpacked, no symbolic link is followed, and files that are not listed here are
never opened. Hard links are read like any file because package managers create them; the hash is what counts.
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
    """Return the file name of a stage's ONNX graph."""
    return f"{stage}_{precision}.onnx"


FILE_NAMES = frozenset({*(graph_name(stage) for stage in STAGES), WEIGHTS_NAME, GOLDEN_NAME})
"""Files that every manifest lists."""
HALF_FILE_NAMES = frozenset(graph_name(stage, "fp16") for stage in STAGES)
"""Files that a manifest also lists if the bundle has half-precision graphs."""
GRAPH_NAMES = frozenset(graph_name(stage, precision) for stage in STAGES for precision in PRECISIONS)

MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES: Mapping[str, int] = {
    # The paper's network, with a base width of 64, takes a quarter of each limit.
    **dict.fromkeys(GRAPH_NAMES, 1 << 30),
    WEIGHTS_NAME: 1 << 31,
    GOLDEN_NAME: GOLDEN_BYTES,
}
"""Maximum size of each file, in bytes."""


@dataclass(frozen=True, slots=True)
class BundleFile(os.PathLike[str]):
    """A file of a bundle on disk."""

    path: Path
    record: FileRecord

    def __fspath__(self) -> str:
        """Return the path, for tools that inspect bundles without running them. Reading from it bypasses the checks."""
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def read_bytes(self) -> bytes:
        """Read the file and verify it against the manifest.

        Raises:
            BundleError: The file is missing, a symbolic link or not a plain file (`E_BUNDLE_FILE`), or its content
                does not match the manifest (`E_HASH`).
        """
        with self._opened() as file:
            # Check before allocating memory: the manifest may claim a larger size than the file has.
            if os.fstat(file.fileno()).st_size != self.record.bytes:
                raise self._changed()
            content = file.read(self.record.bytes + 1)
        if len(content) != self.record.bytes or hashlib.sha256(content).hexdigest() != self.record.sha256:
            raise self._changed()
        return content

    def check(self) -> None:
        """Verify the file against the manifest without loading it into memory. Raises like `read_bytes`."""
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
            raise BundleError(f"{self.path}: {error}; {COPY_THE_FOLDER}", code="E_BUNDLE_FILE") from error
        except OSError as error:
            raise BundleError(
                f"{self.path}: cannot be read ({error.strerror}); check its permissions", code="E_BUNDLE_FILE"
            ) from error

    def _changed(self) -> BundleError:
        return BundleError(
            f"{self.path}: is not the file that was exported (its SHA-256 differs); copy the bundle again",
            code="E_HASH",
        )
