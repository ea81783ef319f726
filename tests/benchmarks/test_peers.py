"""The peers: each computes the same cascade, so each finds the same mask."""

import json
import math
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks.peers.__main__ import choose_peers, main
from benchmarks.peers.arms import PEERS, PLAIN, openers, our_arms
from benchmarks.peers.common import find_crop
from benchmarks.peers.comparison import profiler_of
from benchmarks.peers.scans import make_scans, write_tall
from benchmarks.peers.targets import Target, folder_target, memory_target, ratio_text, speed_targets
from cascade_rt.bundles.bundle import embedded_bundle_path
from cascade_rt.config import CropConfig
from cascade_rt.data.phantom import Phantom, make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt.engines import GPU_BACKENDS
from cascade_rt.errors import UsageError
from cascade_rt.measuring.benchmarking.arms import Arm
from cascade_rt.measuring.benchmarking.measure import (
    ArmResult,
    Measurement,
    Reference,
    Schedule,
    compare_masks,
    measure,
)
from cascade_rt.measuring.benchmarking.statistics import Ratio
from cascade_rt.measuring.benchmarking.worker import Opened, Run
from cascade_rt.models.crop import plan_box
from tests.benchmark_runners import CopyRunner

EAGER = [peer.name for peer in PEERS if "compiled" not in peer.name]
OURS = Arm("onnxruntime", "fp32")


def peer_arguments(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slices of a phantom, cut to 192 x 192 pixels around its tumor."""
    phantom = make_phantom(10_001, (8, 512, 512))
    cut = (slice(4, 7), slice(160, 352), slice(176, 368))
    hu, label = (np.ascontiguousarray(array[cut]) for array in (phantom.hu, phantom.label))
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write_phantom_files(Phantom(hu, label, phantom.spacing_mm, phantom.seed), path, path.with_name("label.nii.gz"))
    return path


@pytest.fixture(scope="module")
def our_mask(scan: Path) -> Path:
    mask = scan.with_name("ours_seg.nii.gz")
    openers(embedded_bundle_path("phantom"), (), (OURS,))[f"cascade-rt {OURS.name}"]().run(scan, mask)
    return mask


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EAGER)
def test_every_peer_finds_our_mask(name: str, scan: Path, our_mask: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    openers(embedded_bundle_path("phantom"), choose_peers(name), ())[name]().run(scan, mask)
    found = compare_masks([mask], [our_mask])
    assert min(counts.positive for counts in found.counts.values()) > 100
    if name.endswith("bf16"):
        assert min(counts.dice for counts in found.counts.values()) > 0.97
    else:
        assert found.different <= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EAGER)
def test_the_mask_of_a_peer_lies_on_the_grid_of_the_scan(name: str, scan: Path, tmp_path: Path) -> None:
    image = nib.load(scan)
    turned = nib.Nifti1Image(np.asarray(image.dataobj)[::-1, :, :2], image.affine @ np.diag([-1, 1, 1, 1]))
    nib.save(turned, tmp_path / "turned.nii.gz")
    openers(embedded_bundle_path("phantom"), choose_peers(name), ())[name]().run(
        tmp_path / "turned.nii.gz", tmp_path / "m.nii.gz"
    )
    mask = nib.load(tmp_path / "m.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    assert mask.shape == turned.shape
    np.testing.assert_allclose(mask.affine, turned.affine)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_compiled_peer_finds_our_mask(scan: Path, our_mask: Path, tmp_path: Path) -> None:
    (_, peer) = choose_peers("torch-best-compiled")
    peer.open(embedded_bundle_path("phantom")).run(scan, tmp_path / "mask.nii.gz")
    assert compare_masks([tmp_path / "mask.nii.gz"], [our_mask]).different <= 1


@pytest.mark.parametrize("corner_grid", [1, 16])
@pytest.mark.parametrize("seed", range(20))
def test_the_crop_of_the_peers_is_ours(seed: int, corner_grid: int) -> None:
    random = np.random.default_rng(seed)
    prob = np.zeros((256, 320), dtype=np.float32)
    config = CropConfig(margin=20, grid=32, min_side=64, corner_grid=corner_grid)
    row, col = random.integers(0, 250), random.integers(0, 310)
    prob[row : row + random.integers(1, 120), col : col + random.integers(1, 120)] = 0.7
    box = plan_box(prob.max(axis=1), prob.max(axis=0), config)
    assert box is not None
    assert find_crop(prob, config) == box.slices


def test_without_pancreas_there_is_no_crop() -> None:
    assert find_crop(np.zeros((64, 64), dtype=np.float32), CropConfig()) is None


def test_slices_that_would_have_to_be_padded_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((100, 64, 1), np.int16), np.eye(4)), tmp_path / "odd.nii.gz")
    with pytest.raises(UsageError, match="multiples of 32, got 64 x 100"):
        choose_peers(PLAIN)[0].open(embedded_bundle_path("phantom")).run(
            tmp_path / "odd.nii.gz", tmp_path / "mask.nii.gz"
        )


def test_the_plain_script_is_always_among_the_peers() -> None:
    assert [peer.name for peer in choose_peers("monai")] == [PLAIN, "monai"]


def test_our_arms_use_fp16_only_on_gpu_backends() -> None:
    assert not [arm for arm in our_arms() if arm.precision == "fp16" and arm.backend not in GPU_BACKENDS]


def test_an_unknown_peer_is_refused_with_the_choices(tmp_path: Path) -> None:
    result = peer_arguments("scan.nii.gz", "--peers", "caffe", "-o", tmp_path / "peers.jsonl")
    assert (result.exit_code, "unknown peer 'caffe'; choose from plain" in result.stderr) == (2, True)


def test_without_a_scan_it_says_how_to_make_one() -> None:
    result = peer_arguments()
    assert (result.exit_code, "--make-scans" in result.stderr) == (2, True)


def test_scans_to_measure_on_are_the_same_for_everybody(tmp_path: Path) -> None:
    for name in "ab":
        make_scans(tmp_path / name, lambda _: None, counts=(2,), side=32)
    first, second = ((tmp_path / name / "phantom_2.nii.gz").read_bytes() for name in "ab")
    assert first == second


def test_a_tall_scan_repeats_its_slices(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.arange(3, dtype=np.int16).reshape(1, 1, 3), np.eye(4)), tmp_path / "scan.nii.gz")
    write_tall(tmp_path / "scan.nii.gz", tmp_path / "tall.nii.gz", 7)
    assert np.asarray(nib.load(tmp_path / "tall.nii.gz").dataobj).ravel().tolist() == [0, 1, 2, 0, 1, 2, 0]


# Targets


class OtherRunner(CopyRunner):
    """As if of another precision."""

    def __init__(self, mask: Path, precision: str) -> None:
        super().__init__(mask)
        self._precision = precision

    @property
    def description(self) -> dict[str, str]:
        return {"precision": self._precision}


def raced(tmp_path: Path, ours: Path, plain: Path) -> Measurement:
    arms = {"plain": partial(CopyRunner, plain), "cascade-rt onnxruntime:fp32": partial(CopyRunner, ours)}
    return measure(arms, [plain], Schedule(2, 0.0), tmp_path / "masks", Reference("plain", arms["plain"]))


def save(path: Path, label: int) -> Path:
    voxels = np.zeros((8, 8, 2), np.uint8)
    voxels[2:4] = 1
    voxels[2, 2] = label
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


def beside_plain(measurement: Measurement) -> Target:
    (target,) = (target for target in speed_targets(measurement, 8) if "plain" in target.text)
    return target


def test_a_target_says_what_was_seen_and_whether_it_was_met(tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.nii.gz", 2)
    target = beside_plain(raced(tmp_path, mask, mask))
    assert target.met == (target.figures["ratio"] >= 3.0)
    assert "times" in target.seen


def test_an_arm_with_other_masks_does_not_count(tmp_path: Path) -> None:
    target = beside_plain(raced(tmp_path, save(tmp_path / "a.nii.gz", 2), save(tmp_path / "b.nii.gz", 1)))
    assert target.met is None


@pytest.mark.parametrize(("peak", "met"), [(3 * 10**6 + (700 << 20), True), (3 * 10**6 + (700 << 20) + 1, False)])
def test_memory_may_hold_volume_and_mask_and_700_mb(peak: int, met: bool) -> None:
    assert memory_target(peak, 10**6).met is met


def test_a_folder_is_held_against_single_runs() -> None:
    assert folder_target(8, [9.0, 8.0, 8.0], [10.0, 10.0, 10.0]).met is True
    assert folder_target(8, [9.5, 9.5, 9.0], [10.0, 10.0, 10.0]).met is False


def test_targets_are_plain_values(tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.nii.gz", 2)
    json.dumps([target.to_json() for target in speed_targets(raced(tmp_path, mask, mask), 8)], allow_nan=False)


def test_one_round_has_no_interval() -> None:
    assert ratio_text(Ratio(2.0, math.nan, math.nan, 1)) == "2.00"


def test_our_arms_are_profiled_by_what_they_computed_in() -> None:
    opened = Opened(1.0, {"backend": "onnxruntime", "precision": "fp32"})
    run = Run(1.0, {})
    ours, theirs = (ArmResult(name, opened, run, (), 0, None) for name in ("cascade-rt onnxruntime", "torch-best"))
    assert (profiler_of(ours), profiler_of(theirs)) == ("onnxruntime:fp32", "torch-best")
