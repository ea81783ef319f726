"""The bundle: the one thing that passes from training to deployment.

    BUNDLE/manifest.json          what it is, how it was trained, what was measured, the hash of every file
    BUNDLE/stage1_fp32.onnx       from Hounsfield units to organ probability, its maxima and the salient image
    BUNDLE/stage2_fp32.onnx       from salient crops to tumour probability
    BUNDLE/stage1_fp16.onnx       both once more in half precision, where that was shown to find the same masks;
    BUNDLE/stage2_fp16.onnx       a bundle has both of these or neither
    BUNDLE/weights.safetensors    the same weights for the PyTorch baseline

A bundle is read whole or refused: a key, a version or a file that this code does not know is an error, and so is a file
whose SHA-256 is not the one in the manifest.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade_rt.config import CascadeConfig, from_mapping, to_mapping
from cascade_rt.errors import BundleError, UsageError
from cascade_rt.hashing import file_sha256
from cascade_rt.tensors import PRECISIONS, STAGE_SPECS, STAGES, Precision, Stage

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"
WEIGHTS_NAME = "weights.safetensors"
MAX_MANIFEST_BYTES = 1 << 20
LABELS = {"0": "background", "1": "pancreas", "2": "tumor"}


def graph_name(stage: Stage, precision: Precision = "fp32") -> str:
    """File name of a stage's ONNX graph."""
    return f"{stage}_{precision}.onnx"


FILE_NAMES = frozenset({*(graph_name(stage) for stage in STAGES), WEIGHTS_NAME})
"""The files that every manifest lists."""
HALF_FILE_NAMES = frozenset(graph_name(stage, "fp16") for stage in STAGES)
"""Those that a manifest lists too where the bundle has graphs in half precision."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the bundle as it was when the manifest was written."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself."""

    name: str
    created: str
    """Date and time of the export, ISO 8601, UTC."""
    config: CascadeConfig
    files: Mapping[str, FileRecord]
    parity: Mapping[str, Any]
    """What the export measured against PyTorch."""
    half_precision: Mapping[str, Any]
    """For each stage, which nodes of its half-precision graph stay in float32 and why; empty without such graphs."""
    training: Mapping[str, Any]
    """Data, configuration, seed and losses of the training."""
    intended_use: str
    """What the bundle may be used for; shown with every result."""

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain values."""
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


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose files are what its manifest says."""

    path: Path
    manifest: Manifest
    sha256: str
    """Hash of the manifest; through the hashes in it, of everything."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that it has graphs of."""
        return tuple(precision for precision in PRECISIONS if graph_name("stage1", precision) in self.manifest.files)

    def graph(self, stage: Stage, precision: Precision = "fp32") -> Path:
        """The ONNX graph of a stage.

        Raises:
            BundleError: The bundle has no graphs of this precision.
        """
        if precision not in self.precisions:
            raise BundleError(f"{self.path}: has no {precision} graphs; export the bundle again with --fp16")
        return self.path / graph_name(stage, precision)

    @property
    def weights(self) -> Path:
        """The weights of the PyTorch baseline."""
        return self.path / WEIGHTS_NAME


def default_bundle_path() -> Path:
    """The embedded bundle: small, trained on synthetic phantoms, for demonstration and tests only."""
    return Path(__file__).parent / "assets" / "phantom_bundle"


def read_bundle(path: Path) -> Bundle:
    """Open a bundle and check every file of it.

    Raises:
        BundleError: It is no bundle, of an unknown version, incomplete, or a file is not the one that was exported.
    """
    manifest_path = path / MANIFEST_NAME
    if not manifest_path.is_file():
        raise BundleError(f"{path}: is not a bundle (it has no {MANIFEST_NAME}); make one with: cascade-rt export")
    if manifest_path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{manifest_path}: is larger than {MAX_MANIFEST_BYTES} bytes; this is not a manifest")
    try:
        content = manifest_path.read_bytes()
        manifest = _parse_manifest(json.loads(content))
        for name, record in manifest.files.items():
            _check_file(path / name, record)
    except (ValueError, RecursionError, UsageError) as error:
        raise BundleError(f"{manifest_path}: {error}; export the bundle again") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return Bundle(path, manifest, hashlib.sha256(content).hexdigest())


def write_manifest(path: Path, manifest: Manifest) -> Bundle:
    """Write the manifest of a bundle whose files are already in `path`, and read the bundle back."""
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False)
    (path / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
    return read_bundle(path)


def record_files(path: Path) -> dict[str, FileRecord]:
    """Hash the files of a bundle that is being written."""
    there = sorted(entry for entry in path.iterdir() if entry.name in FILE_NAMES | HALF_FILE_NAMES)
    return {entry.name: FileRecord(file_sha256(entry), entry.stat().st_size) for entry in there}


def is_bundle_only(path: Path) -> bool:
    """Whether a folder holds the files of a bundle and nothing else."""
    names = {entry.name for entry in path.iterdir()}
    return names - HALF_FILE_NAMES == FILE_NAMES | {MANIFEST_NAME}


_PLAIN_KEYS: dict[str, type] = {
    **dict.fromkeys(("name", "created", "intended_use"), str),
    **dict.fromkeys(("parity", "half_precision", "training"), dict),
}
"""Keys of a manifest that are taken as they are, if they have this type."""


def _parse_manifest(document: Any) -> Manifest:
    """Turn a JSON document into a manifest; ValueError says what is wrong with it."""
    if not isinstance(document, dict):
        raise ValueError("must hold a JSON object")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version must be {SCHEMA_VERSION}, got {version!r}")
    expected = {"schema_version", "config", "labels", "tensors", "files", *_PLAIN_KEYS}
    if document.keys() != expected:
        unknown, missing = sorted(document.keys() - expected), sorted(expected - document.keys())
        raise ValueError(f"has unknown keys {unknown} and misses {missing}")
    if document["labels"] != LABELS or document["tensors"] != _tensor_table():
        raise ValueError("describes other labels or tensors than this version of cascade-rt works with")
    for key, kind in _PLAIN_KEYS.items():
        if not isinstance(document[key], kind):
            raise ValueError(f"{key} must be a JSON {'string' if kind is str else 'object'}, got {document[key]!r}")
    return Manifest(
        name=document["name"],
        created=document["created"],
        # A field that is newer than the bundle has its default, which is what its version did.
        config=from_mapping(CascadeConfig, document["config"], "config"),
        files=_parse_files(document["files"]),
        parity=document["parity"],
        half_precision=document["half_precision"],
        training=document["training"],
        intended_use=document["intended_use"],
    )


def _parse_files(files: Any) -> dict[str, FileRecord]:
    if not isinstance(files, dict) or files.keys() not in (FILE_NAMES, FILE_NAMES | HALF_FILE_NAMES):
        raise ValueError(f"files must be {sorted(FILE_NAMES)}, with or without {sorted(HALF_FILE_NAMES)}")
    return {name: from_mapping(FileRecord, record, f"files.{name}", complete=True) for name, record in files.items()}


def _check_file(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: is missing from the bundle; copy the bundle again")
    if path.stat().st_size != record.bytes or file_sha256(path) != record.sha256:
        raise BundleError(f"{path}: is not the file that was exported (its SHA-256 differs); copy the bundle again")


def _tensor_table() -> dict[str, Any]:
    """The stage specs as JSON, in the manifest for readers other than this code."""
    document: dict[str, Any] = json.loads(json.dumps({stage: asdict(spec) for stage, spec in STAGE_SPECS.items()}))
    return document
