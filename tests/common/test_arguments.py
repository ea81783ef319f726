"""Arguments of another type are refused in one sentence that names them, before any work begins."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cascade_rt import Volume, open_cascade, read_bundle, read_mask, read_volume, write_mask
from cascade_rt.engines import EngineRequest
from cascade_rt.errors import UsageError
from cascade_rt.run.case import Case
from cascade_rt.run.inference import RunOptions, infer_file
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.search import SearchOptions
from tests.cohort_files import AFFINE, fake_cascade

SCAN = Volume.from_array(np.zeros((8, 8, 4), dtype=np.int16), AFFINE)
MASK = np.zeros((4, 8, 8), dtype=np.uint8)
CPU = EngineRequest("onnxruntime")
CASE = Case(Path("scan.nii.gz"), Path("mask.nii.gz"), Path("mask.json"))

CALLS: dict[str, tuple[str, Callable[[], object]]] = {
    "run: search": ("search", lambda: fake_cascade().run(SCAN, search=4)),
    "run: search as text": ("search", lambda: fake_cascade().run(SCAN, search="whole")),
    "run: search None": ("search", lambda: fake_cascade().run(SCAN, search=None)),
    "run: on_slices": ("on_slices", lambda: fake_cascade().run(SCAN, on_slices=None)),
    "run: keep_probabilities": ("keep_probabilities", lambda: fake_cascade().run(SCAN, keep_probabilities="no")),
    "run: on_open": ("on_open", lambda: fake_cascade().run(SCAN, on_open=None)),
    "run: a path": ("scan", lambda: fake_cascade().run("scan.nii.gz")),
    "open_cascade: bundle": ("bundle", lambda: open_cascade(3)),
    "open_cascade: backend": ("backend", lambda: open_cascade(backend=[])),
    "open_cascade: plans": ("plans", lambda: open_cascade(engines=EngineRequest(plans="plans"))),
    "open_cascade: engines": ("engines", lambda: open_cascade(engines="onnxruntime")),
    "open_cascade: backend twice": ("engines", lambda: open_cascade(backend="openvino", engines=CPU)),
    "open_cascade: device twice": ("engines", lambda: open_cascade(device=1, engines=CPU)),
    "EngineRequest: device": ("device", lambda: EngineRequest(device="1")),
    "EngineRequest: a device below 0": ("device", lambda: EngineRequest(device=-1)),
    "EngineRequest: precision": ("precision", lambda: EngineRequest(precision="int8")),
    "read_bundle: path": ("path", lambda: read_bundle(None)),
    "read_volume: path": ("path", lambda: read_volume(None)),
    "read_volume: options": ("options", lambda: read_volume("scan.nii.gz", True)),
    "read_mask: path": ("path", lambda: read_mask(5)),
    "read_mask: like": ("like", lambda: read_mask("mask.nii.gz", MASK)),
    "write_mask: mask": ("mask", lambda: write_mask(MASK.tolist(), SCAN, "mask.nii.gz")),
    "write_mask: volume": ("volume", lambda: write_mask(MASK, MASK, "mask.nii.gz")),
    "infer_file: options": ("options", lambda: infer_file(fake_cascade(), CASE, {"overwrite": True})),
    "RunOptions: reading": ("reading", lambda: RunOptions({"assume_hu": True})),
    "RunOptions: search": ("search", lambda: RunOptions(search=4)),
    "from_array: name": ("name", lambda: Volume.from_array(MASK, AFFINE, name=Path("scan"))),
    "SearchOptions: first_every": ("first_every", lambda: SearchOptions("4")),
    "SearchOptions: half": ("first_every", lambda: SearchOptions(2.5)),
    "SearchOptions: body_box": ("body_box", lambda: SearchOptions(1, "yes")),
    "ScanOptions: volume": ("volume", lambda: ScanOptions(volume="1")),
    "ScanOptions: hu_offset": ("hu_offset", lambda: ScanOptions(hu_offset=0.5)),
    "ScanOptions: assume_hu": ("assume_hu", lambda: ScanOptions(assume_hu="no")),
    "ScanOptions: assume_orientation": ("assume_orientation", lambda: ScanOptions(assume_orientation=5)),
}


@pytest.mark.parametrize(("name", "call"), CALLS.values(), ids=list(CALLS))
def test_an_argument_of_another_type_is_refused_by_its_name(name: str, call: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: "):
        call()


def test_paths_may_be_text() -> None:
    bundle = read_bundle(str(Path(__file__).parents[2] / "cascade_rt" / "assets" / "phantom_bundle"))
    assert bundle.manifest.name


def test_numbers_of_numpy_are_numbers() -> None:
    assert SearchOptions(np.int64(4)).first_every == 4
