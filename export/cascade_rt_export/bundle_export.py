"""Export a checkpoint to a bundle: weights, graphs, parity check, manifest.

Float32 is verified before half precision is planned, and does not depend on it. If half precision misses its limits, as
it does for small or barely trained networks, the bundle holds float32 only: it is correct, every engine runs it, and
hours of training should not be lost. Nothing is written only if half precision was required.
"""

import datetime
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from cascade_rt.bundles.bundle import Bundle, Manifest, is_bundle_only, read_bundle, record_files, write_manifest
from cascade_rt.bundles.files import WEIGHTS_NAME, graph_name
from cascade_rt.common.arguments import as_path
from cascade_rt.common.outputs import write_error
from cascade_rt.common.tensors import STAGE_SPECS, STAGES, EnginePrecision, Precision, Stage
from cascade_rt.common.tolerances import GATE_LIMITS, PARITY_LIMITS, Limits
from cascade_rt.common.version import __version__
from cascade_rt.config import to_mapping
from cascade_rt.data.phantom_store import is_synthetic
from cascade_rt.engines import open_engines
from cascade_rt.engines.base import Array
from cascade_rt.errors import BundleError, InputError, OutputExistsError, ParityError
from cascade_rt.models.weights import save_weights
from cascade_rt.training.checkpoint import Checkpoint
from cascade_rt_export.calibration import Calibration, default_calibration, stage_inputs
from cascade_rt_export.conv_work import half_share
from cascade_rt_export.gate import judge, run_gate
from cascade_rt_export.golden_case import write_golden
from cascade_rt_export.half_precision import Kept, half_precision_graph
from cascade_rt_export.half_search import halves_if_same, same_masks, smallest_kept
from cascade_rt_export.onnx_graph import OPSET, onnx_from_stage
from cascade_rt_export.parity import check_parity

INTENDED_USE = "Research only; not a medical device."
SYNTHETIC_TUMORS_INTENDED_USE = (
    "Research only; not for diagnosis. Trained on synthetic tumors in healthy patients, never on a real tumor."
)
PHANTOM_INTENDED_USE = "Demonstration only: trained on synthetic phantoms, not for clinical use."

_OTHER_TERMS = "use your own scans with `calibration`, allow more with `limits`"

_log = logging.getLogger("cascade_rt.export")


def export_bundle(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    overwrite: bool = False,
    half: bool = True,
    require_half: bool = False,
    search: bool = False,
    calibration: Calibration | None = None,
    graphs_of: Bundle | None = None,
    limits: Mapping[EnginePrecision, Limits] = GATE_LIMITS,
    on_step: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Export both stages, compare them with PyTorch, and only then move the bundle into place.

    Args:
        checkpoint: The trained cascade.
        path: Folder of the bundle.
        name: Name of the bundle in reports. Defaults to the name of the folder.
        overwrite: Replace an existing bundle.
        half: Add half-precision graphs of both stages if their masks match those of PyTorch. Otherwise they are left
            out, and `parity["half_precision_left_out"]` in the manifest says why.
        require_half: Raise instead of leaving half precision out.
        search: Of the planned nodes, keep in float32 only those without which the masks of the slices change.
        calibration: Slices to plan half precision and compare on. Defaults to `default_calibration`.
        graphs_of: A bundle with these weights. If the current versions exported it, its float32 graphs are reused, and
            compared with PyTorch like new ones.
        limits: How far each precision may differ from PyTorch.
        on_step: Called with a sentence before each step.

    Raises:
        ParityError: A float32 graph differs from PyTorch in its outputs or masks, or a half-precision graph does and
            half precision is required. Nothing is written.
        BundleError: A graph cannot be converted to half precision, which is required, or a graph of `graphs_of` does
            not match its manifest. Nothing is written.
        OutputExistsError: `path` exists and `overwrite` is off, or it is not a bundle.
        OutputError: The folder cannot be written.
    """
    path = as_path("path", path)
    _check_target(path, overwrite)
    slices = calibration or default_calibration(checkpoint.data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            draft.mkdir()
            manifest = _write_graphs(checkpoint, draft, name or path.name, graphs_of, on_step)
            manifest = _prove(draft, manifest, slices, "fp32", limits["fp32"], on_step)
            if half:
                terms = _HalfTerms(slices, limits["fp16"], search=search, required=require_half)
                manifest = _with_half(draft, manifest, terms, on_step)
            write_manifest(draft, manifest)
            _move_into_place(draft, path, Path(folder) / "replaced")
    except OSError as error:
        raise write_error(path, error) from error
    bundle = read_bundle(path)
    _log.info("exported the bundle %s to %s, in %s", manifest.name, path, " and ".join(bundle.precisions))
    return bundle


def _move_into_place(draft: Path, path: Path, replaced: Path) -> None:
    """Rename a finished bundle to its path. An existing bundle is moved to `replaced`, and back if this fails."""
    if not path.exists():
        draft.rename(path)
        return
    path.rename(replaced)
    try:
        draft.rename(path)
    except BaseException:
        replaced.rename(path)
        raise


@dataclass(frozen=True, slots=True)
class _HalfTerms:
    """The conditions under which half precision is added to a bundle."""

    calibration: Calibration
    limits: Limits
    search: bool
    required: bool


def _write_graphs(
    checkpoint: Checkpoint, path: Path, name: str, graphs_of: Bundle | None, on_step: Callable[[str], None]
) -> Manifest:
    """Write the weights and both graphs, and compare each graph with PyTorch."""
    model = checkpoint.build_model()
    save_weights(model, path / WEIGHTS_NAME)
    write_golden(model, path, synthetic=is_synthetic(checkpoint.data))
    if graphs_of is not None and graphs_of.manifest.parity.get("versions") == _versions()["versions"]:
        on_step(f"reusing the graphs of {graphs_of.manifest.name}, exported with these versions")
        for stage in STAGES:
            (path / graph_name(stage)).write_bytes(graphs_of.graph(stage).read_bytes())
    else:
        for stage in STAGES:
            on_step(f"exporting {stage} to ONNX")
            onnx.save(onnx_from_stage(model, stage), path / graph_name(stage))
    manifest = Manifest(
        name=name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        config=checkpoint.cascade,
        files=record_files(path),
        parity={},
        half_precision={},
        training=_training_record(checkpoint),
        intended_use=_intended_use(checkpoint),
    )
    unproven = write_manifest(path, manifest)
    on_step("comparing the graphs with PyTorch")
    parity: dict[str, Any] = {found.stage: found.to_json() for found in check_parity(unproven)}
    return replace(manifest, parity={"limit": PARITY_LIMITS.max_error, **_versions(), **parity})


def _intended_use(checkpoint: Checkpoint) -> str:
    if is_synthetic(checkpoint.data):
        return PHANTOM_INTENDED_USE
    return SYNTHETIC_TUMORS_INTENDED_USE if checkpoint.train.synthetic_tumors else INTENDED_USE


def _with_half(path: Path, single: Manifest, terms: _HalfTerms, on_step: Callable[[str], None]) -> Manifest:
    """Add half precision to a verified float32 bundle, or leave the bundle as is if half precision does not pass."""
    try:
        manifest = _add_half(path, single, terms, on_step)
        return _prove(path, manifest, terms.calibration, "fp16", terms.limits, on_step)
    except BundleError as error:
        if terms.required:
            raise
        for stage in STAGES:
            (path / graph_name(stage, "fp16")).unlink(missing_ok=True)
        # A bundle is shared with others and should not reveal the folder it was made in.
        reason = str(error).replace(str(path), path.name)
        _log.warning("half precision is left out: %s", reason)
        return replace(single, parity={**single.parity, "half_precision_left_out": reason})


def _add_half(path: Path, manifest: Manifest, terms: _HalfTerms, on_step: Callable[[str], None]) -> Manifest:
    """Write both graphs in half precision, planned on the inputs that the float32 graphs receive.

    Planned nodes are dropped if the masks of each stage still reach the least Dice without them: the convolutions near
    the image always, and with a search any others.
    """
    bundle = write_manifest(path, manifest)
    calibration = terms.calibration
    on_step("running the float32 graphs on the calibration slices")
    with open_engines(bundle, "onnxruntime", "fp32") as engines:
        inputs = stage_inputs(calibration, engines, manifest.config)
    record: dict[str, Any] = {}
    for stage in STAGES:
        on_step(f"planning half precision of {stage}")
        graph, feeds = onnx.load(bundle.graph(stage)), inputs[stage]
        fewer = _Fewer(graph, feeds, stage, terms)
        half = half_precision_graph(graph, feeds, source=calibration.source, fewer=fewer)
        onnx.save(half.graph, path / graph_name(stage, "fp16"))
        record[stage] = {
            "half_share_of_convolutions": half_share(half.graph, feeds[0]),
            "kept": half.kept,
            "dropped_by_search": fewer.dropped_by_search,
            "calibration": half.calibration,
        }
    return replace(manifest, files=record_files(path), half_precision=record)


@dataclass(slots=True)
class _Fewer:
    """Chooses, of the nodes planned to stay in float32 in a stage, those that its masks need."""

    graph: onnx.ModelProto
    feeds: Sequence[Mapping[str, Array]]
    stage: Stage
    terms: _HalfTerms
    dropped_by_search: int | None = None
    """Number of nodes that the search dropped, or None without a search."""

    def __call__(self, planned: Kept) -> Kept:
        """Return these nodes, or all if the stage finds nothing whose masks could be compared."""
        output, least_dice = STAGE_SPECS[self.stage].outputs[0].name, self.terms.limits.least_dice
        try:
            holds = same_masks(self.graph, self.feeds, output, least_dice=least_dice)
        except InputError:
            if self.terms.search:
                raise
            return planned
        fewer = halves_if_same(self.graph, planned, holds)
        if not self.terms.search:
            return fewer
        needed = smallest_kept(self.graph, fewer, holds)
        self.dropped_by_search = len(fewer) - len(needed)
        return needed


def _prove(
    path: Path,
    manifest: Manifest,
    calibration: Calibration,
    precision: Precision,
    limits: Limits,
    on_step: Callable[[str], None],
) -> Manifest:
    """Compare the masks of a precision with those of PyTorch. Raises ParityError if they differ too much."""
    bundle = write_manifest(path, manifest)
    with open_engines(bundle, "pytorch") as reference, open_engines(bundle, "onnxruntime", precision) as candidate:
        found = run_gate(reference, candidate, manifest.config, calibration, on_step=on_step)
    try:
        judge(found, limits, f"{manifest.name} in {precision} on onnxruntime")
    except ParityError as error:
        without = ", export only float32 with `half=False`" if precision == "fp16" else ""
        raise ParityError(f"{error}; {_OTHER_TERMS}{without}") from None
    gate = {**manifest.parity.get("gate", {}), precision: {**found.to_json(), "limits": asdict(limits)}}
    return replace(manifest, parity={**manifest.parity, "gate": gate})


def _check_target(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir() or path.is_symlink() or not is_bundle_only(path):
        raise OutputExistsError(f"{path}: already exists and is not just a bundle; choose another folder")
    if not overwrite:
        raise OutputExistsError(f"{path}: already exists; replace it with `overwrite`, or choose another folder")


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
