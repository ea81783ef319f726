"""The bundle: the artifact that training hands over to deployment.

    BUNDLE/manifest.json          metadata: config, training, measurements, and the hash of every file
    BUNDLE/stage1_fp32.onnx       from Hounsfield units to organ probability, its maxima and the salient image
    BUNDLE/stage2_fp32.onnx       from salient crops to tumor probability
    BUNDLE/stage1_fp16.onnx       both again in half precision, if this was shown to give the same masks;
    BUNDLE/stage2_fp16.onnx       a bundle has both of these or neither
    BUNDLE/weights.safetensors    the same weights for the PyTorch baseline
    BUNDLE/golden.bin             a small input of each stage and PyTorch's output for it, to test engines with
    BUNDLE/manifest.json.sig      the signature of the manifest, if the bundle is signed

Bundles are untrusted, so a bundle is either valid as a whole or rejected. Unknown keys and versions are errors, as are
files whose SHA-256 differs from the manifest and graphs that contain more than networks need (docs/decisions/0018).
The order of checks is signature, manifest, hashes, graphs. Only the manifest, which is small, is parsed before it is
hashed. Files that do not belong to a bundle are not read.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cascade_rt.bundles.files import (
    FILE_NAMES,
    GOLDEN_NAME,
    GRAPH_NAMES,
    HALF_FILE_NAMES,
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    SIGNATURE_NAME,
    WEIGHTS_NAME,
    BundleFile,
    graph_name,
)
from cascade_rt.bundles.golden import Golden, read_golden
from cascade_rt.bundles.graph_checks import check_graph
from cascade_rt.bundles.manifest_shape import FREE_PARTS, check_shape
from cascade_rt.bundles.signature import check_signature, sign
from cascade_rt.common.arguments import as_path
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.hashing import FileRecord, record_file
from cascade_rt.common.plain_file import COPY_THE_FOLDER, NotAPlainFileError, read_plain_file
from cascade_rt.common.strict_json import parse_strict_json
from cascade_rt.common.tensors import PRECISIONS, STAGE_SPECS, Precision, Stage
from cascade_rt.config import CascadeConfig, from_mapping, to_mapping
from cascade_rt.errors import BundleError, UsageError

SCHEMA_VERSION = 3
LABELS = {"0": "background", "1": "pancreas", "2": "tumor"}
EmbeddedName = Literal["patients", "patients-tumor", "phantom"]
EMBEDDED_NAMES: tuple[EmbeddedName, ...] = get_args(EmbeddedName)
"""Bundles included in the package: trained on patients, for the pancreas; on the same patients with synthetic tumors,
for both; and on synthetic phantoms, for both, meant for demonstration and tests."""
DEFAULT_EMBEDDED: EmbeddedName = "patients"
"""The bundle used if none is named."""
_LONGEST_COMPLAINT = 300
"""Maximum length of a quoted complaint in characters: it may quote the whole manifest."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle's metadata."""

    name: str
    created: str
    """Date and time of the export, ISO 8601, UTC."""
    config: CascadeConfig
    files: Mapping[str, FileRecord]
    parity: Mapping[str, Any]
    """What the export measured against PyTorch."""
    half_precision: Mapping[str, Any]
    """For each stage, which nodes of its half-precision graph stay in float32 and why; empty if there are none."""
    training: Mapping[str, Any]
    """Data, configuration, seed and losses of the training."""
    intended_use: str
    """Intended use of the bundle; shown with every result."""

    def to_json(self) -> dict[str, Any]:
        """Convert the manifest to plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "created": self.created,
            "config": to_mapping(self.config),
            "labels": LABELS,
            "tensors": _tensor_table(),
            "files": {name: asdict(record) for name, record in sorted(self.files.items())},
            "parity": dict(self.parity),
            "half_precision": dict(self.half_precision),
            "training": dict(self.training),
            "intended_use": self.intended_use,
        }


@dataclass(frozen=True, slots=True, repr=False)
class Bundle:
    """A bundle on disk whose files have been verified against its manifest."""

    path: Path
    manifest: Manifest
    sha256: str
    """Hash of the manifest and, through the hashes in it, of all files."""

    def __repr__(self) -> str:
        return f"<Bundle {self.manifest.name!r}: {' and '.join(self.precisions)}, {self.sha256[:12]}>"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions the bundle has graphs for."""
        return tuple(precision for precision in PRECISIONS if graph_name("stage1", precision) in self.manifest.files)

    def graph(self, stage: Stage, precision: Precision = "fp32") -> BundleFile:
        """Return the ONNX graph of a stage. Engines must load it with `read_bytes`, which returns verified bytes.

        Raises:
            BundleError: The bundle has no graphs in this precision.
        """
        if precision not in self.precisions:
            raise BundleError(
                f"{self.path}: has no {precision} graphs; export the bundle again with `require_half=True`"
            )
        return self._file(graph_name(stage, precision))

    @property
    def weights(self) -> BundleFile:
        """The weights of the PyTorch baseline."""
        return self._file(WEIGHTS_NAME)

    def read_golden(self) -> dict[Stage, Golden]:
        """Read the test inputs and expected outputs of each stage.

        Raises:
            BundleError: The file has changed since the bundle was opened, or is not a valid golden file.
        """
        file = self._file(GOLDEN_NAME)
        try:
            return read_golden(file.read_bytes())
        except ValueError as error:
            raise BundleError(f"{file}: {error}; export the bundle again") from error

    def _file(self, name: str) -> BundleFile:
        return BundleFile(self.path / name, self.manifest.files[name])


def embedded_bundle_path(name: EmbeddedName) -> Path:
    """Return the folder of a bundle included in the package."""
    return Path(__file__).parents[1] / "assets" / f"{name.replace('-', '_')}_bundle"


def default_bundle_path() -> Path:
    """Return the folder of the bundle used if none is named."""
    return embedded_bundle_path(DEFAULT_EMBEDDED)


def find_bundle(bundle: str | os.PathLike[str] | None) -> Path:
    """Resolve the user's choice of bundle to a folder.

    Args:
        bundle: A folder, or the name of an embedded bundle. A bundle in a folder of that name in the working directory
            takes precedence. A `Path`, or a name starting with `./`, is always a folder. None: the default bundle.
    """
    if bundle is None:
        return default_bundle_path()
    for name in EMBEDDED_NAMES:
        if bundle == name and not (Path(name) / MANIFEST_NAME).exists():
            return embedded_bundle_path(name)
    return Path(bundle)


def read_bundle(path: str | os.PathLike[str], public_key: str | os.PathLike[str] | None = None) -> Bundle:
    """Open a bundle and verify all its files.

    Args:
        path: The folder of the bundle.
        public_key: A PEM file. A bundle not signed with the matching private key is rejected.

    Raises:
        BundleError: The folder is not a bundle, is not signed with the key (`E_SIGNATURE`), has an unknown version
            (`E_MANIFEST`), is incomplete (`E_BUNDLE_FILE`), a file is not the exported one (`E_HASH`), a graph contains
            more than networks need (`E_GRAPH`, `E_EXTERNAL_DATA`), or a file does not fit into memory (`E_TOO_LARGE`).
        UsageError: `public_key` is not a key, or an argument is not a path.
        BackendUnavailableError: `public_key` is given, and the package `cryptography` is not installed.
    """
    path = as_path("path", path)
    content = read_manifest_bytes(path)
    if public_key is not None:
        check_signature(content, path / SIGNATURE_NAME, as_path("public_key", public_key))
    return _checked_bundle(path, content)


def sign_bundle(path: Path, private_key: Path) -> Bundle:
    """Verify a bundle and write the signature of its manifest next to it, replacing any existing signature.

    Args:
        path: The folder of the bundle.
        private_key: A PEM file.

    Raises:
        BundleError: The bundle is rejected; nothing is signed.
        UsageError: `private_key` is not a key.
        BackendUnavailableError: The package `cryptography` is not installed.
        OutputError: The signature cannot be written.
    """
    content = read_manifest_bytes(path)
    bundle = _checked_bundle(path, content)
    write_bytes(path / SIGNATURE_NAME, sign(content, private_key), overwrite=True)
    return bundle


def _checked_bundle(path: Path, content: bytes) -> Bundle:
    """Parse a manifest and verify every file it lists."""
    manifest_path = path / MANIFEST_NAME
    try:
        manifest = _parse_manifest(parse_strict_json(content))
    except (ValueError, UsageError) as error:
        complaint = str(error)[:_LONGEST_COMPLAINT]
        raise BundleError(f"{manifest_path}: {complaint}; export the bundle again", code="E_MANIFEST") from error
    except MemoryError as error:
        raise _too_large(manifest_path) from error
    for name, record in manifest.files.items():
        try:
            _check_file(BundleFile(path / name, record))
        except MemoryError as error:
            raise _too_large(path / name) from error
    return Bundle(path, manifest, hashlib.sha256(content).hexdigest())


def read_manifest_bytes(path: Path) -> bytes:
    """Read the raw bytes of a bundle's manifest, which are what is signed.

    Raises:
        BundleError: The manifest does not exist, is not a plain file, or is too large.
    """
    manifest_path = path / MANIFEST_NAME
    try:
        return read_plain_file(manifest_path, MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{path}: is not a bundle (no {MANIFEST_NAME}); create one with: cascade-rt export"
        ) from error
    except NotAPlainFileError as error:
        raise BundleError(f"{manifest_path}: {error}; {COPY_THE_FOLDER}", code="E_MANIFEST") from error
    except OSError as error:
        raise BundleError(f"{manifest_path}: cannot be read ({error.strerror}); check its permissions") from error


def write_manifest(path: Path, manifest: Manifest) -> Bundle:
    """Write the manifest of a bundle whose other files are already in `path`, then read the bundle back."""
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False)
    write_bytes(path / MANIFEST_NAME, (text + "\n").encode(), overwrite=True)
    return read_bundle(path)


def record_files(path: Path) -> dict[str, FileRecord]:
    """Hash the files of a bundle that is being written."""
    there = sorted(entry for entry in path.iterdir() if entry.name in FILE_NAMES | HALF_FILE_NAMES)
    return {entry.name: record_file(entry) for entry in there}


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle: a folder with a manifest, whatever its content."""
    return (path / MANIFEST_NAME).is_file()


def is_bundle_only(path: Path) -> bool:
    """Whether a folder contains the files of a bundle and nothing else."""
    names = {entry.name for entry in path.iterdir()}
    return names - HALF_FILE_NAMES - {SIGNATURE_NAME} == FILE_NAMES | {MANIFEST_NAME}


_PLAIN_KEYS: dict[str, type] = {
    **dict.fromkeys(("name", "created", "intended_use"), str),
    **dict.fromkeys(("parity", "half_precision", "training"), dict),
}
"""Manifest keys that are used as they are if they have this type."""


def _parse_manifest(document: Any) -> Manifest:
    """Convert a JSON document to a manifest. Raises ValueError if it is invalid."""
    if not isinstance(document, dict):
        raise ValueError("must be a JSON object")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version must be {SCHEMA_VERSION}, got {version!r}")
    expected = {"schema_version", "config", "labels", "tensors", "files", *_PLAIN_KEYS}
    if document.keys() != expected:
        unknown, missing = sorted(document.keys() - expected), sorted(expected - document.keys())
        raise ValueError(f"has unknown keys {unknown} and missing keys {missing}")
    if document["labels"] != LABELS or document["tensors"] != _tensor_table():
        raise ValueError("has labels or tensors that this version of cascade-rt does not support")
    for key, kind in _PLAIN_KEYS.items():
        if not isinstance(document[key], kind):
            raise ValueError(f"{key} must be a JSON {'string' if kind is str else 'object'}, got {document[key]!r}")
    for key, shape in FREE_PARTS.items():
        check_shape(document[key], shape, key)
    return Manifest(
        name=document["name"],
        created=document["created"],
        # Config fields newer than the bundle get their default, which matches the behavior of the bundle's version.
        config=from_mapping(CascadeConfig, document["config"], "config"),
        files=_parse_files(document["files"]),
        parity=document["parity"],
        half_precision=document["half_precision"],
        training=document["training"],
        intended_use=document["intended_use"],
    )


def _parse_files(files: Any) -> dict[str, FileRecord]:
    if not isinstance(files, dict) or files.keys() not in (FILE_NAMES, FILE_NAMES | HALF_FILE_NAMES):
        raise ValueError(f"files must be {sorted(FILE_NAMES)}, optionally with {sorted(HALF_FILE_NAMES)}")
    records = {name: from_mapping(FileRecord, record, f"files.{name}", complete=True) for name, record in files.items()}
    for name, record in records.items():
        if not 0 <= record.bytes <= MAX_FILE_BYTES[name]:
            raise ValueError(f"files.{name}.bytes must be between 0 and {MAX_FILE_BYTES[name]}, got {record.bytes}")
    return records


def _check_file(file: BundleFile) -> None:
    """Compare a file with its record and, if it is a graph, check its content."""
    if file.name in GRAPH_NAMES:
        check_graph(file.read_bytes(), str(file))
    else:
        file.check()


def _too_large(path: Path) -> BundleError:
    sentence = "does not fit in the memory of this process; allow more memory or use a smaller bundle"
    return BundleError(f"{path}: {sentence}", code="E_TOO_LARGE")


def _tensor_table() -> dict[str, Any]:
    """Return the stage specs as JSON values; they are in the manifest for readers other than this code."""
    document: dict[str, Any] = json.loads(json.dumps({stage: asdict(spec) for stage, spec in STAGE_SPECS.items()}))
    return document
