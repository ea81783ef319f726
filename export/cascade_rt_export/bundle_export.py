"""From a checkpoint to a bundle: weights, graphs, the check, the manifest."""

import datetime
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch

from cascade_rt.bundle import (
    BUNDLE_FILES,
    WEIGHTS_NAME,
    Bundle,
    Manifest,
    graph_name,
    read_bundle,
    record_files,
    write_manifest,
)
from cascade_rt.config import to_mapping
from cascade_rt.data.phantom_store import is_synthetic
from cascade_rt.errors import OutputError, OutputExistsError
from cascade_rt.models.weights import save_weights
from cascade_rt.tensors import STAGES
from cascade_rt.training.checkpoint import Checkpoint
from cascade_rt.version import __version__
from cascade_rt_export.onnx_graph import OPSET, onnx_from_stage
from cascade_rt_export.parity import MAX_ERROR, check_parity

INTENDED_USE = "Research only; not a medical device."
PHANTOM_INTENDED_USE = "Demonstration only: trained on synthetic phantoms, not for clinical use."


def export_bundle(
    checkpoint: Checkpoint,
    path: Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Export both stages, compare them with PyTorch, and only then put the bundle in its place.

    Args:
        checkpoint: The trained cascade.
        path: Folder of the bundle.
        name: What the bundle is called in reports; none: the name of the folder.
        overwrite: Replace a bundle that is there.
        on_step: Called with a sentence before each step.

    Raises:
        ParityError: A graph does not compute what PyTorch computes; nothing is written.
        OutputExistsError: `path` is there and `overwrite` is off, or it is no bundle.
        OutputError: The folder cannot be written.
    """
    _check_target(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            draft.mkdir()
            _write_bundle(checkpoint, draft, name or path.name, on_step)
            if path.exists():
                path.rename(Path(folder) / "replaced")
            draft.rename(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); name another folder") from error
    return read_bundle(path)


def _write_bundle(checkpoint: Checkpoint, path: Path, name: str, on_step: Callable[[str], None]) -> None:
    """Write all files of a bundle and compare its graphs with PyTorch."""
    model = checkpoint.build_model()
    save_weights(model, path / WEIGHTS_NAME)
    for stage in STAGES:
        on_step(f"exporting {stage} to ONNX")
        onnx.save(onnx_from_stage(model, stage), path / graph_name(stage))
    manifest = Manifest(
        name=name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        config=checkpoint.cascade,
        files=record_files(path),
        parity={},
        training=_training_record(checkpoint),
        intended_use=PHANTOM_INTENDED_USE if is_synthetic(checkpoint.data) else INTENDED_USE,
    )
    unproven = write_manifest(path, manifest)
    on_step("comparing the graphs with PyTorch")
    parity: dict[str, Any] = {found.stage: found.to_json() for found in check_parity(unproven)}
    write_manifest(path, replace(manifest, parity={"limit": MAX_ERROR, **_versions(), **parity}))


def _check_target(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir() or path.is_symlink() or {entry.name for entry in path.iterdir()} != BUNDLE_FILES:
        raise OutputExistsError(f"{path}: is there and is not just a bundle; name another folder")
    if not overwrite:
        raise OutputExistsError(f"{path}: is there already; replace it with --overwrite, or name another folder")


def _training_record(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "data": checkpoint.data,
        "epochs": checkpoint.epochs_done,
        "config": to_mapping(checkpoint.train),
        "history": list(checkpoint.history),
    }


def _versions() -> dict[str, Any]:
    import onnxruntime
    import onnxscript

    return {
        "reference": "pytorch",
        "backend": "onnxruntime",
        "opset": OPSET,
        "versions": {
            "cascade_rt": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxscript": onnxscript.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
