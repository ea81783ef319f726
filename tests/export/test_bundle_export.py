"""Export writes a bundle that is shown to compute what PyTorch computes, or nothing."""

import re
import shutil
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cascade_rt.bundles.bundle import Bundle, read_bundle
from cascade_rt.common.comparison import Agreement
from cascade_rt.common.tensors import PRECISIONS, STAGE_SPECS, STAGES, Precision, Stage
from cascade_rt.common.tolerances import GATE_LIMITS, PARITY_LIMITS
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import open_engines
from cascade_rt.errors import BundleError, OutputError, OutputExistsError, ParityError
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.volume import Volume
from cascade_rt.training.checkpoint import Checkpoint
from cascade_rt_export import batch_slots, bundle_export, parity
from cascade_rt_export.bundle_export import export_bundle
from cascade_rt_export.parity import check_parity
from tests.parity_limits import RANDOM_WEIGHTS, one_phantom, small_calibration


def test_the_manifest_says_what_was_measured_on_which_inputs(bundle: Bundle) -> None:
    for stage in ("stage1", "stage2"):
        found = bundle.manifest.parity[stage]
        assert max(found["max_error"].values()) <= PARITY_LIMITS.max_error
        batches = {shape[0] for shape in found["inputs"]}
        sides = {tuple(shape[2:]) for shape in found["inputs"]}
        assert (len(batches), len(sides)) == (2, 3)


def test_stage_2_is_checked_on_shapes_the_exporter_never_saw(bundle: Bundle) -> None:
    assert [2, 1, 128, 96] not in bundle.manifest.parity["stage2"]["inputs"]


def test_the_manifest_says_what_it_was_trained_on_and_may_be_used_for(bundle: Bundle) -> None:
    assert bundle.manifest.training["data"] == "random weights"
    assert bundle.manifest.intended_use == "Research only; not a medical device."


def test_onnxruntime_and_pytorch_agree_on_a_whole_scan(bundle: Bundle) -> None:
    phantom = make_phantom(11, (16, 120, 100))
    volume = Volume.from_array(phantom.hu.T, np.diag([-3.0, -3.0, 5.0, 1.0]))
    results = []
    for backend in ("onnxruntime", "pytorch"):
        with Cascade(bundle, open_engines(bundle, backend)) as cascade:
            results.append(cascade.run(volume, keep_probabilities=True))
    first, second = results
    assert first.organ_prob is not None
    assert first.tumor_prob is not None
    np.testing.assert_allclose(first.organ_prob, second.organ_prob, atol=PARITY_LIMITS.max_error)
    assert np.count_nonzero(first.mask != second.mask) <= first.mask.size * 1e-5
    assert first.boxes == second.boxes
    np.testing.assert_allclose(first.tumor_prob, second.tumor_prob, atol=PARITY_LIMITS.max_error)


@pytest.fixture
def few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small input of each stage tells that a graph is wrong."""
    monkeypatch.setattr(parity, "BATCH_SIZES", (1,))
    monkeypatch.setattr(parity, "SIDES", {stage: sides[:1] for stage, sides in parity.SIDES.items()})


def spoil(path: Path) -> None:
    """Change a weight of an ONNX graph, as a miscompiled export would."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(weight.raw_data, dtype=np.float32).copy()
    weight.raw_data = (values * 1.01).tobytes()
    onnx.save(model, path)


def test_a_graph_that_computes_something_else_fails_the_export(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    monkeypatch.setattr(bundle_export, "onnx_from_stage", lambda _, stage: onnx.load(bundle.graph(stage)))
    real_save = onnx.save

    def save_spoilt(model: onnx.ModelProto, path: Path) -> None:
        real_save(model, path)
        if path.name.startswith("stage2"):
            monkeypatch.setattr(onnx, "save", real_save)
            spoil(path)

    monkeypatch.setattr(bundle_export.onnx, "save", save_spoilt)
    with pytest.raises(ParityError, match=r"stage2_fp32\.onnx: on onnxruntime differs from PyTorch by"):
        export_bundle(checkpoint, tmp_path / "bundle", half=False, calibration=one_phantom())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few_inputs")
def test_a_difference_of_nan_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last output of stage 1 alone: max() of Python forgets a NaN that is not the first.
    errors = cycle([0.0] * (len(STAGE_SPECS["stage1"].outputs) - 1) + [np.nan])
    monkeypatch.setattr(parity, "compare", lambda *_: Agreement(1, max_error=next(errors)))
    with pytest.raises(ParityError, match="differs from PyTorch by nan"):
        check_parity(bundle)


def test_an_existing_bundle_is_not_overwritten_by_default(checkpoint: Checkpoint, bundle: Bundle) -> None:
    with pytest.raises(OutputExistsError, match="already exists; replace it with `overwrite`"):
        export_bundle(checkpoint, bundle.path)


def test_a_bundle_with_something_else_in_it_is_never_replaced(
    checkpoint: Checkpoint, bundle: Bundle, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="already exists and is not just a bundle"):
        export_bundle(checkpoint, folder, overwrite=True)


def test_a_bundle_holds_both_precisions(bundle: Bundle) -> None:
    assert bundle.precisions == ("fp32", "fp16")


@pytest.mark.parametrize("stage", STAGES)
def test_the_manifest_says_what_stays_in_float32_and_why(bundle: Bundle, stage: Stage) -> None:
    planned = bundle.manifest.half_precision[stage]
    assert planned["half_share_of_convolutions"] >= 0.95
    assert all(rule["reason"] and rule["nodes"] for rule in planned["kept"])
    assert planned["calibration"]["source"].startswith("synthetic phantoms")


@pytest.mark.usefixtures("proven_float32")
def test_a_search_keeps_fewer_nodes_and_says_how_many(checkpoint: Checkpoint, tmp_path: Path, bundle: Bundle) -> None:
    found = export_bundle(
        checkpoint,
        tmp_path / "bundle",
        search=True,
        calibration=small_calibration(),
        graphs_of=bundle,
        limits=RANDOM_WEIGHTS,
    ).manifest.half_precision
    planned = bundle.manifest.half_precision
    for stage in STAGES:
        fewer = kept_nodes(planned[stage]) - kept_nodes(found[stage])
        assert len(fewer) == found[stage]["dropped_by_search"] > 0


@pytest.mark.usefixtures("proven_float32")
@pytest.mark.parametrize(("same", "reads_in_halves"), [(True, True), (False, False)])
def test_convolutions_near_the_image_stay_in_float32_only_if_the_masks_need_them(
    checkpoint: Checkpoint,
    tmp_path: Path,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    *,
    same: bool,
    reads_in_halves: bool,
) -> None:
    monkeypatch.setattr(bundle_export, "same_masks", lambda *_, **__: lambda _: same)
    found = export_bundle(
        checkpoint, tmp_path / "bundle", calibration=one_phantom(), graphs_of=bundle, limits=RANDOM_WEIGHTS
    )
    for stage in STAGES:
        near = [rule for rule in found.manifest.half_precision[stage]["kept"] if rule["rule"] == "near"]
        assert (near == []) is reads_in_halves


def kept_nodes(planned: dict[str, Any]) -> set[str]:
    return {name for rule in planned["kept"] for name in rule["nodes"]}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_manifest_says_how_the_masks_agree_and_what_was_allowed(bundle: Bundle, precision: Precision) -> None:
    found = bundle.manifest.parity["gate"][precision]
    assert found["organ"]["mask_dice"] >= found["limits"]["least_dice"]
    assert found["engine"]["precision"] == precision


IMPOSSIBLE = {"fp32": GATE_LIMITS["fp32"], "fp16": replace(GATE_LIMITS["fp16"], mean_error=0.0)}


@pytest.fixture
def proven_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The float32 graphs were compared, the places of a batch too; what follows is about half precision."""
    monkeypatch.setattr(bundle_export, "check_parity", lambda _: [])
    monkeypatch.setattr(batch_slots, "LARGEST_BATCH", dict.fromkeys(STAGES, 2))


@pytest.mark.usefixtures("proven_float32")
def test_half_precision_with_different_masks_is_left_out_of_the_bundle(
    checkpoint: Checkpoint, tmp_path: Path, bundle: Bundle
) -> None:
    path = tmp_path / "bundle"
    found = export_bundle(checkpoint, path, calibration=one_phantom(), graphs_of=bundle, limits=IMPOSSIBLE)
    assert found.precisions == ("fp32",)
    assert [file.name for file in path.glob("*fp16*")] == []
    reason = found.manifest.parity["half_precision_left_out"]
    assert re.search(r"fp16 on onnxruntime: probabilities of the organ differ .* phantom \d+, slice", reason)
    assert set(found.manifest.parity["gate"]) == {"fp32"}


@pytest.mark.usefixtures("proven_float32")
def test_required_half_precision_that_fails_names_every_remedy(
    checkpoint: Checkpoint, tmp_path: Path, bundle: Bundle
) -> None:
    with pytest.raises(ParityError, match=r"`calibration`, .* `limits`, export only float32 with `half=False`"):
        export_bundle(
            checkpoint,
            tmp_path / "bundle",
            require_half=True,
            calibration=one_phantom(),
            graphs_of=bundle,
            limits=IMPOSSIBLE,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("proven_float32")
def test_a_stage_that_cannot_be_converted_leaves_float32_as_it_is(
    checkpoint: Checkpoint, tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(graph: onnx.ModelProto, *_: object, **__: object) -> None:
        raise BundleError(f"{graph.graph.name}: computes something that is not a number")

    monkeypatch.setattr(bundle_export, "half_precision_graph", refuse)
    found = export_bundle(
        checkpoint, tmp_path / "bundle", calibration=one_phantom(), graphs_of=bundle, limits=RANDOM_WEIGHTS
    )
    assert found.precisions == ("fp32",)
    assert "not a number" in found.manifest.parity["half_precision_left_out"]


@pytest.mark.usefixtures("proven_float32")
def test_an_existing_bundle_is_replaced_if_requested(checkpoint: Checkpoint, bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    replaced = export_bundle(
        checkpoint,
        folder,
        name="second",
        overwrite=True,
        half=False,
        calibration=one_phantom(),
        graphs_of=bundle,
    )
    assert replaced.manifest.name == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("proven_float32")
def test_a_bundle_that_cannot_be_replaced_is_still_there(
    checkpoint: Checkpoint, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    rename = Path.rename

    def refuse_the_new_one(path: Path, target: Path) -> Path:
        if (path / "weights.safetensors").exists() and target == folder and path.name == folder.name:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new_one)
    terms = {"half": False, "calibration": one_phantom(), "graphs_of": bundle}
    with pytest.raises(OutputError, match="bundle: cannot be written"):
        export_bundle(checkpoint, folder, overwrite=True, **terms)  # type: ignore[arg-type]
    assert read_bundle(folder).sha256 == bundle.sha256


def test_a_folder_without_a_bundle_is_never_replaced(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="already exists and is not just a bundle"):
        export_bundle(checkpoint, tmp_path, overwrite=True)


# Exported again


@pytest.mark.usefixtures("proven_float32")
def test_the_graphs_of_a_bundle_that_these_versions_exported_are_taken(
    checkpoint: Checkpoint, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(bundle_export, "onnx_from_stage")
    calibration = one_phantom()
    again = export_bundle(checkpoint, tmp_path / "again", half=False, calibration=calibration, graphs_of=bundle)
    assert all(again.graph(stage).read_bytes() == bundle.graph(stage).read_bytes() for stage in STAGES)


@pytest.mark.usefixtures("proven_float32")
def test_graphs_exported_by_other_versions_are_rebuilt(
    checkpoint: Checkpoint, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parity = bundle.manifest.parity
    older = {**parity, "versions": {**parity["versions"], "onnxscript": "0.1"}}
    made: list[Stage] = []

    def make(_: object, stage: Stage) -> onnx.ModelProto:
        made.append(stage)
        return onnx.load(bundle.graph(stage))

    monkeypatch.setattr(bundle_export, "onnx_from_stage", make)
    old = replace(bundle, manifest=replace(bundle.manifest, parity=older))
    export_bundle(checkpoint, tmp_path / "again", half=False, calibration=one_phantom(), graphs_of=old)
    assert made == list(STAGES)


@pytest.mark.usefixtures("proven_float32")
def test_a_graph_that_was_changed_is_not_taken(checkpoint: Checkpoint, bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "changed"))
    spoil(folder / "stage2_fp32.onnx")
    with pytest.raises(BundleError, match=r"stage2_fp32\.onnx") as caught:
        export_bundle(checkpoint, tmp_path / "again", graphs_of=read_bundle(folder))
    assert caught.value.code == "E_HASH"
    assert [path.name for path in tmp_path.iterdir()] == ["changed"]


@pytest.mark.usefixtures("few_inputs")
def test_graphs_of_other_weights_are_not_reused(checkpoint: Checkpoint, bundle: Bundle, tmp_path: Path) -> None:
    other = {name: tensor * 1.1 if tensor.dim() == 4 else tensor for name, tensor in checkpoint.model.items()}
    with pytest.raises(ParityError, match="differs from PyTorch"):
        export_bundle(replace(checkpoint, model=other), tmp_path / "again", calibration=one_phantom(), graphs_of=bundle)
