"""A manifest of another shape is refused when the bundle is opened, by the name of what is wrong with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.errors import BundleError

HUGE = 1 << 70
OTHER_SHAPES: dict[str, Callable[[dict[str, Any]], object]] = {
    "parity": lambda m: m.update(parity=[]),
    "parity.stage1": lambda m: m.update(parity={"stage1": 5}),
    "parity.stage2": lambda m: m["parity"].update(stage2=None),
    "parity.stage1.max_error": lambda m: m["parity"]["stage1"].update(max_error=[1e-5]),
    "parity.stage1.max_error.organ_prob": lambda m: m["parity"]["stage1"]["max_error"].update(organ_prob="small"),
    "parity.stage1.max_error.row_max": lambda m: m["parity"]["stage1"]["max_error"].update(row_max=True),
    "parity.stage1.max_error.col_max": lambda m: m["parity"]["stage1"]["max_error"].update(col_max=10**400),
    "parity.gate": lambda m: m["parity"].update(gate="passed"),
    "parity.gate.fp32": lambda m: m["parity"]["gate"].update(fp32=True),
    "parity.gate.fp32 is missing the key engine": lambda m: m["parity"]["gate"]["fp32"].pop("engine"),
    "parity.gate.fp32.engine": lambda m: m["parity"]["gate"]["fp32"].update(engine="onnxruntime"),
    "parity.gate.fp32.engine is missing the key device": lambda m: m["parity"]["gate"]["fp32"]["engine"].pop("device"),
    "parity.gate.fp32.engine.backend": lambda m: m["parity"]["gate"]["fp32"]["engine"].update(backend=1),
    "parity.gate.fp32.slices": lambda m: m["parity"]["gate"]["fp32"].update(slices=2.5),
    "parity.gate.fp32.organ": lambda m: m["parity"]["gate"]["fp32"].update(organ=0.99),
    "parity.gate.fp32.organ.mask_dice": lambda m: m["parity"]["gate"]["fp32"]["organ"].update(mask_dice="1"),
    "parity.gate.fp32.tumor.max_error": lambda m: m["parity"]["gate"]["fp32"]["tumor"].update(max_error=None),
    "parity.gate.fp16 is missing the key tumor": lambda m: m["parity"]["gate"]["fp16"].pop("tumor"),
    "parity.gate.fp16.boxes_moved": lambda m: m["parity"]["gate"]["fp16"].update(boxes_moved=3),
    r"parity.gate.fp16.tumors_appeared[0]": lambda m: m["parity"]["gate"]["fp16"].update(tumors_appeared=[7]),
    "parity.gate.fp16.tumors_vanished": lambda m: m["parity"]["gate"]["fp16"].update(tumors_vanished={}),
    "half_precision": lambda m: m.update(half_precision=1),
    "half_precision.x": lambda m: m.update(half_precision={"x": 1}),
    "half_precision.stage1 is missing the key kept": lambda m: m.update(half_precision={"stage1": {}}),
    "half_precision.stage1.kept": lambda m: m["half_precision"]["stage1"].update(kept=4),
    "half_precision.stage1.kept[0]": lambda m: m["half_precision"]["stage1"].update(kept=["a node"]),
    "half_precision.stage1.kept[0] is missing the key nodes": lambda m: m["half_precision"]["stage1"].update(kept=[{}]),
    "half_precision.stage1.kept[0].nodes": lambda m: m["half_precision"]["stage1"].update(kept=[{"nodes": 2}]),
    "half_precision.stage2.half_share_of_convolutions": lambda m: m["half_precision"]["stage2"].update(
        half_share_of_convolutions="all"
    ),
    "half_precision.stage2.dropped_by_search": lambda m: m["half_precision"]["stage2"].update(dropped_by_search=[]),
    "training": lambda m: m.update(training=None),
    "training is missing the key data": lambda m: m["training"].pop("data"),
    "training.data": lambda m: m["training"].update(data=["patients"]),
    "training.epochs": lambda m: m["training"].update(epochs={"S": 1}),
    "config": lambda m: m.update(config=[]),
    "config.crop": lambda m: m["config"].update(crop=5),
    "cascade.crop.min_side": lambda m: m["config"]["crop"].update(min_side=HUGE),
    "cascade.crop.margin": lambda m: m["config"]["crop"].update(margin=HUGE),
    "cascade.crop.grid": lambda m: m["config"]["crop"].update(grid=HUGE),
    "cascade.base_width": lambda m: m["config"].update(base_width=HUGE),
    "cascade.window_hu": lambda m: m["config"].update(window_hu=[-1e308, 1e308]),
    "cascade.pixel_mm": lambda m: m["config"].update(pixel_mm=[1e-300, 1.0]),
    "config.least_island_ml": lambda m: m["config"].update(least_island_ml=HUGE),
    "files": lambda m: m.update(files=[]),
    "files.golden.bin": lambda m: m["files"].update({"golden.bin": "hash"}),
    "files.golden.bin.sha256": lambda m: m["files"]["golden.bin"].update(sha256=5),
    "files.golden.bin.bytes": lambda m: m["files"]["golden.bin"].update(bytes=HUGE),
    "schema_version": lambda m: m.update(schema_version=True),
    "name": lambda m: m.update(name=["a", "b"]),
    "has control characters": lambda m: m.update(name="fdp.\u202eelbnub"),
}


def write_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The manifest of a bundle, changed, without its files: these are looked at after it."""
    document = json.loads((embedded_bundle_path("phantom") / "manifest.json").read_text(encoding="utf-8"))
    change(document)
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("what", OTHER_SHAPES)
def test_a_manifest_of_another_shape_is_refused_with_a_sentence(what: str, tmp_path: Path) -> None:
    write_manifest(tmp_path, OTHER_SHAPES[what])
    with pytest.raises(BundleError) as caught:
        read_bundle(tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("E_MANIFEST", 5)
    assert what in str(caught.value)
    assert str(caught.value).endswith("; export the bundle again")


def test_what_nothing_reads_may_be_anything(tmp_path: Path) -> None:
    def add(document: dict[str, Any]) -> None:
        document["parity"].update(remark=[1, {"of": None}])
        document["half_precision"]["stage1"].update(half_share_of_convolutions=None, more="words")
        document["training"].update(history="lost")

    write_manifest(tmp_path, add)
    with pytest.raises(BundleError, match="is missing from the bundle"):
        read_bundle(tmp_path)


def test_a_manifest_that_is_a_link_says_how_to_copy_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").symlink_to(embedded_bundle_path("phantom") / "manifest.json")
    with pytest.raises(BundleError, match=r"manifest\.json: is a symbolic link; copy the folder with: cp -rL"):
        read_bundle(tmp_path)
