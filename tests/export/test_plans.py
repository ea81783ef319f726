"""Engines written to a folder: real ones of TensorRT-RTX, for a GPU that is not here."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from cascade_rt.bundles.bundle import Bundle, record_files
from cascade_rt.bundles.files import graph_name
from cascade_rt.common.tensors import STAGES
from cascade_rt.engines.engine_cache import BuildOptions
from cascade_rt.errors import OutputExistsError
from cascade_rt_export.plans import write_plans
from tests.build_reasons import noted
from tests.half_graphs import convolutions, of_stage

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13")

ADA = BuildOptions(compute_capability="8.9")


@pytest.fixture(scope="module")
def small(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle with float32 graphs alone, and small ones in place of its own: each build takes seconds."""
    path = tmp_path_factory.mktemp("small")
    for stage in STAGES:
        onnx.save(of_stage(convolutions([2.0], shrink=0.5), stage), path / graph_name(stage))
    files = {name: record for name, record in bundle.manifest.files.items() if "fp16" not in name}
    return replace(bundle, path=path, manifest=replace(bundle.manifest, files=files | record_files(path)))


@pytest.fixture(scope="module")
def folder(small: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the engines of the bundle."""
    path = tmp_path_factory.mktemp("engines") / "new" / "folder"
    write_plans(small, path, ADA)
    return path


def test_each_graph_has_a_plan_and_its_facts(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{stage}_fp32.{suffix}" for stage in STAGES for suffix in ("json", "plan")
    ]


@pytest.mark.parametrize("name", [f"{stage}_fp32" for stage in STAGES])
def test_the_facts_are_those_of_the_plan_and_of_the_bundle(folder: Path, small: Bundle, name: str) -> None:
    facts = json.loads((folder / f"{name}.json").read_text())
    assert facts["plan_sha256"] == hashlib.sha256((folder / f"{name}.plan").read_bytes()).hexdigest()
    assert (facts["stage"], facts["precision"]) == tuple(name.split("_"))
    assert facts["bundle"] == {"name": small.manifest.name, "sha256": small.sha256}
    assert facts["options"]["compute_capability"] == "8.9"


def test_existing_engines_are_refused_before_anything_is_compiled(folder: Path, small: Bundle) -> None:
    reasons: list[str] = []
    with pytest.raises(OutputExistsError, match=r"stage1_fp32\.plan: already exists"):
        write_plans(small, folder, ADA, on_build=noted(reasons))
    assert reasons == []
