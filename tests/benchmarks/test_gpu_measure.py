"""The measurements on a GPU: their logic on the CPU, with the clock on the wall; and a little of all where a GPU is."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks.gpu import device, measure, timings
from benchmarks.gpu.arms import ARMS, BASELINE, Arm
from benchmarks.gpu.clock import FEWEST, CudaClock, Run, Turns, WallClock, race, speedup, statistics_of
from benchmarks.gpu.deadline import NEVER, NO_TIME, Deadline
from benchmarks.gpu.engine_runs import bound_run, images_and_results
from benchmarks.gpu.gates import gate_of_pytorch, measure_gates
from benchmarks.gpu.lines import Lines, describe_machine
from benchmarks.gpu.network import Network, Task, add_graphs, count_work, noise, random_network, usual_side
from benchmarks.gpu.peaks import PEAKS, TFLOPS, Peak, matrix_product, measure_peaks
from benchmarks.gpu.timings import measure_timings
from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import STAGE_SPECS, STAGES
from cascade_rt.common.tolerances import GATE_LIMITS, Limits
from cascade_rt.engines.engine_cache import CACHE_VARIABLE
from cascade_rt.engines.nvidia import Gpu
from cascade_rt.engines.onnxruntime_session import open_cpu_session
from cascade_rt.engines.plans import no_plans
from cascade_rt.errors import BundleError, OutputError
from cascade_rt.training.checkpoint import Checkpoint
from cascade_rt_export import batch_slots, onnx_graph
from tests.gpu_backends import require_packages
from tests.parity_limits import one_phantom, small_calibration

ROOT = Path(__file__).parents[2]
SMALL = Task("stage2", 1, 64)
SMALL_PEAK = Peak("small", TFLOPS, matrix_product(torch.float32, side=16))
SHORT = Turns(rounds=2, seconds=1e-6)


class ToldClock:
    """Says of each run what the run itself returns."""

    def __init__(self) -> None:
        self.turns: list[float] = []

    def seconds(self, run: Run, count: int) -> list[float]:
        found = [float(run()) for _ in range(count)]  # type: ignore[arg-type]
        self.turns.append(found[0])
        return found


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(8)


@pytest.fixture(scope="module")
def exported(bundle: Bundle, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """The network of the bundle that all tests share, whose export need not be waited for again."""
    network = Network(checkpoint.build_model().eval())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "onnx_from_stage", lambda _, stage: onnx.load(bundle.graph(stage)))
        add_graphs(network, tmp_path_factory.mktemp("graphs"), lambda _: None)
    return network


def fails(_: Network, __: Task) -> Run:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")


def timed(network: Network, arms: list[Arm], task: Task = SMALL) -> dict[str, dict[str, Any]]:
    lines = measure_timings(network, task, WallClock(), SHORT, peaks={"fp32": 2.0}, arms=arms)
    return {line["arm"]: line for line in lines}


def told(seconds: float) -> Run:
    return lambda: seconds


def command(*arguments: str) -> Result:
    return CliRunner().invoke(measure.main, arguments, catch_exceptions=False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_it_is_one_sentence_and_exit_code_7(tmp_path: Path) -> None:
    result = command("-o", str(tmp_path / "gpu.jsonl"))
    assert result.exit_code == 7
    assert result.stderr.startswith("Error: this benchmark needs an NVIDIA GPU, and this machine has no NVIDIA driver")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    command("-o", str(tmp_path / "gpu.jsonl"))
    assert list(tmp_path.iterdir()) == []


def test_a_pytorch_without_cuda_ends_it_too(a_gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_gpu", lambda: a_gpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = command("-o", str(tmp_path / "gpu.jsonl"))
    assert result.exit_code == 7
    assert "does not find the GPU" in result.stderr


def test_it_can_be_imported_without_optional_packages() -> None:
    script = (
        "import sys\n"
        "class Missing:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {hidden}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing)\n"
        "import benchmarks.gpu.measure\n"
    )
    hidden = {"nibabel", "monai", "matplotlib", "scipy", "safetensors", "onnxruntime", "onnxscript", "tensorrt"}
    subprocess.run([sys.executable, "-c", script.replace("{hidden}", repr(hidden))], check=True, cwd=ROOT)


def test_a_gate_that_cannot_be_had_at_all_is_a_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cascade_rt_export.plans", None)
    (line,) = measure.gate_bundle(bundle.path, NEVER, lambda _: None)
    assert "cascade_rt_export.plans" in line["reason"]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("results") / "gpu.jsonl"
    gpu = Gpu("NVIDIA Test", (9, 0), 1 << 30, "590.44.01", "13.1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "DEVICE": "cpu",
            "CudaClock": WallClock,
            "require_cuda": lambda: gpu,
            "own_stream": nullcontext,
            "measure_peaks": lambda clock, device: measure_peaks(clock, device, (SMALL_PEAK,)),
            "gate_bundle": lambda *_: iter([{"backend": "all", "reason": "no scipy"}]),
        }.items():
            patch.setattr(measure, name, value)
        patch.setattr(timings, "usual_side", lambda *_: 64)
        options = ["--arms=pytorch-eager-tf32", "--base-width=8", "--batches=1", "--rounds=1", "--seconds=1e-6"]
        result = command(*options, "-o", str(path))
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_has_all_parts_in_order(lines: list[dict[str, Any]]) -> None:
    assert [line["kind"] for line in lines] == ["peak", "gate", *["timing"] * 4]


def test_graphs_are_made_only_in_the_precisions_that_an_arm_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(measure, "DEVICE", "cpu")
    monkeypatch.setattr(measure, "add_graphs", lambda network, folder, say, precisions: asked.append(precisions))
    monkeypatch.setattr(measure, "time_stages", lambda *_, **__: iter(()))
    options = measure.Options(Path(), ("timings",), ("tensorrt-fp16",), 8, (1,), SHORT, 1.0)
    lines = list(measure.time_networks(options, WallClock(), {}, NEVER, lambda _: None))  # type: ignore[arg-type]
    assert asked == [["fp16"]]
    assert [(kind, line["precision"]) for kind, line in lines] == [("graph", "fp16")] * 2


def test_every_line_says_what_it_was_measured_with(lines: list[dict[str, Any]]) -> None:
    common = {"kind", "date", "gpu", "driver", "processor", "versions", "commit", "reason"}
    assert all(common <= line.keys() for line in lines)


def test_the_baseline_runs_beside_the_requested_backend(lines: list[dict[str, Any]]) -> None:
    arms = [(line["stage"], line["arm"]) for line in lines if line["kind"] == "timing"]
    assert arms == [(stage, arm) for stage in STAGES for arm in (BASELINE.name, "pytorch-eager-tf32")]


def test_every_timing_has_its_ratio(lines: list[dict[str, Any]]) -> None:
    assert all(line["speedup"] > 0 for line in lines if line["kind"] == "timing")


def test_each_says_what_it_was_measured_with(a_gpu: Gpu, tmp_path: Path) -> None:
    Lines(tmp_path / "gpu.jsonl", describe_machine(a_gpu, "abc1234")).write("peak", {"name": "x", "reason": None})
    line = json.loads((tmp_path / "gpu.jsonl").read_text())
    assert (line["kind"], line["gpu"], line["driver"], line["commit"]) == (
        "peak",
        "NVIDIA Test",
        "590.44.01",
        "abc1234",
    )
    assert line["versions"]["PyTorch"]
    assert line["date"]


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "gpu.jsonl").write_text("{}\n")
    Lines(tmp_path / "gpu.jsonl", {}).write("peak", {})
    assert len((tmp_path / "gpu.jsonl").read_text().splitlines()) == 2


def test_a_missing_folder_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        Lines(tmp_path / "nowhere" / "gpu.jsonl", {})


def test_each_round_begins_with_another() -> None:
    clock = ToldClock()
    race({"a": told(1.0), "b": told(2.0)}, clock, Turns(rounds=2))
    assert clock.turns[-4:] == [1.0, 2.0, 2.0, 1.0]


def test_a_turn_has_as_many_runs_as_fit() -> None:
    raced = race({"a": told(0.1)}, ToldClock(), Turns(rounds=1, seconds=1.0))
    assert len(raced.rounds["a"][0]) == 10


def test_a_slow_one_has_a_few_runs_all_the_same() -> None:
    raced = race({"a": told(9.0)}, ToldClock(), Turns(rounds=1, seconds=1.0))
    assert len(raced.rounds["a"][0]) == FEWEST


def test_one_that_fails_later_is_left_out_with_the_reason() -> None:
    left = [1.0] * 7

    def weary() -> float:
        return left.pop()

    raced = race({"a": told(1.0), "b": weary}, ToldClock(), Turns(rounds=2, seconds=1.0))
    assert list(raced.rounds) == ["a"]
    assert raced.reasons["b"].startswith("IndexError")


def test_after_the_deadline_none_is_warmed_up() -> None:
    raced = race({"a": told(1.0)}, ToldClock(), Turns(rounds=2), Deadline.after(0))
    assert raced.reasons == {"a": NO_TIME}


def test_after_the_deadline_no_second_round_begins() -> None:
    class EndingClock(ToldClock):
        def seconds(self, run: Run, count: int) -> list[float]:
            found = super().seconds(run, count)
            if len(self.turns) == 2:
                deadlines.append(Deadline.after(0))
            return found

    class Moving(Deadline):
        @property
        def passed(self) -> bool:
            return bool(deadlines)

    deadlines: list[Deadline] = []
    raced = race({"a": told(1.0)}, EndingClock(), Turns(rounds=7, seconds=1.0), Moving())
    assert len(raced.rounds["a"]) == 1


def test_after_the_deadline_no_arm_is_opened(network: Network) -> None:
    lines = measure_timings(
        network, SMALL, WallClock(), SHORT, peaks={}, arms=[Arm("failing", "fp16", fails)], deadline=Deadline.after(0)
    )
    assert [line["reason"] for line in lines] == [NO_TIME]


def test_the_work_counted_is_that_of_the_network(network: Network) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    count_work(network)
    side = usual_side("stage1", network.config)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.stage("stage1")(network.image(Task("stage1", 1, side)))
    counted = counter.get_flop_counts()["Global"]
    convolutions = sum(flops for operation, flops in counted.items() if "conv" in str(operation))
    assert 2 * network.multiplications["stage1"] == convolutions


def test_pytorch_on_the_device_is_compared_with_pytorch_on_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_slots, "LARGEST_BATCH", dict.fromkeys(STAGES, 2))
    line = gate_of_pytorch(bundle, one_phantom(), "cpu")
    assert (line["backend"], line["reference_device"], line["passed"]) == ("pytorch", "cpu", True)
    assert line["found"]["organ"]["max_error"] == 0


def test_statistics_are_those_of_all_runs() -> None:
    found = statistics_of([[1.0] * 50, [2.0] * 51])
    assert (found["median_s"], found["runs"], found["rounds"]) == (2.0, 101, 2)
    assert found["p99_s"] == 2.0


def test_a_ratio_is_taken_in_each_round() -> None:
    # Twice as fast in each round, though the machine slowed down tenfold.
    assert speedup([[2.0], [20.0]], [[1.0], [10.0]]) == {
        "speedup": 2.0,
        "speedup_lowest": 2.0,
        "speedup_highest": 2.0,
    }


def test_all_lines_have_the_same_keys(network: Network) -> None:
    lines = timed(network, [BASELINE, Arm("failing", "fp16", fails)])
    assert lines["failing"].keys() == lines[BASELINE.name].keys()


def test_the_baseline_is_as_fast_as_itself(network: Network) -> None:
    line = timed(network, [BASELINE])[BASELINE.name]
    assert line["speedup"] == 1.0
    assert line["reason"] is None


def test_an_arm_that_raises_is_a_line_with_the_reason(network: Network) -> None:
    line = timed(network, [BASELINE, Arm("failing", "fp16", fails)])["failing"]
    assert line["reason"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate"
    assert line["median_s"] is None


def test_without_a_baseline_there_is_no_ratio(network: Network) -> None:
    line = timed(network, [replace(BASELINE, name="other")])["other"]
    assert line["speedup"] is None
    assert line["median_s"] > 0


def test_the_share_of_the_peak_counts_a_multiply_add_as_two_operations(network: Network) -> None:
    side = usual_side("stage2", network.config)
    counted = replace(network, multiplications={"stage2": 10**9})
    line = timed(counted, [BASELINE], Task("stage2", 2, side))[BASELINE.name]
    assert line["multiplications"] == 2 * 10**9
    assert line["tflops"] == pytest.approx(4e9 / line["median_s"] / 1e12)
    assert line["share_of_peak"] == pytest.approx(line["tflops"] / 2.0)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.name.startswith("pytorch-eager")], ids=lambda a: a.name)
def test_an_eager_arm_runs_both_stages(network: Network, arm: Arm) -> None:
    results = [arm.open(network, Task(stage, 1, 64))() for stage in STAGE_SPECS]
    assert [type(result) for result in results] == [tuple, torch.Tensor]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("arm", [arm for arm in ARMS if not arm.name.startswith("pytorch")], ids=lambda arm: arm.name)
def test_without_a_gpu_an_engine_is_a_line_with_the_reason(network: Network, arm: Arm) -> None:
    assert timed(network, [arm])[arm.name]["reason"]


def test_names_of_arms_differ() -> None:
    assert len({arm.name for arm in ARMS}) == len(ARMS)


def test_both_precisions_exist(exported: Network) -> None:
    assert exported.reasons == {}
    assert len(exported.graphs) == 4


def test_nearly_all_of_the_work_is_halved(exported: Network) -> None:
    assert min(exported.half_shares.values()) > 0.9


def test_a_graph_says_what_it_is(exported: Network) -> None:
    line = exported.describe_graph("stage1", "fp16")
    assert line["multiplications"] > 1e9
    assert line["half_share"] > 0.9


def test_a_graph_that_could_not_be_made_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cascade_rt_export.onnx_graph", None)
    network = random_network(8)
    add_graphs(network, tmp_path, lambda _: None)
    with pytest.raises(BundleError, match=r"no fp16 graph of stage2: .*onnx_graph"):
        network.graph("stage2", "fp16")


def test_a_bound_session_writes_where_pytorch_reads(exported: Network) -> None:
    tensors = images_and_results(exported, SMALL)
    session = open_cpu_session(exported.graph("stage2", "fp32").read_bytes(), "stage 2")
    bound_run(session, "stage2", tensors)()
    with torch.inference_mode():
        expected = exported.stage("stage2")(torch.from_numpy(noise(SMALL)))
    torch.testing.assert_close(tensors["tumor_prob"], expected, atol=1e-4, rtol=0)


def test_a_product_of_matrices_is_counted_in_operations() -> None:
    (line,) = measure_peaks(WallClock(), "cpu", (SMALL_PEAK,))
    assert line["value"] == pytest.approx(2 * 16**3 / line["median_s"] / 1e12)


def test_one_that_fails_is_a_line_with_the_reason() -> None:
    def prepare(_: str) -> tuple[Run, float]:
        raise RuntimeError("no page-locked memory")

    (line,) = measure_peaks(WallClock(), "cpu", (Peak("failing", TFLOPS, prepare),))
    assert line["reason"] == "RuntimeError: no page-locked memory"


def test_a_missed_limit_is_recorded_and_the_next_engine_measured(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: Mapping[str, Limits] = GATE_LIMITS
    monkeypatch.setattr(batch_slots, "LARGEST_BATCH", dict.fromkeys(STAGES, 2))
    monkeypatch.setitem(limits, "fp32", replace(limits["fp32"], mean_error=0.0))  # type: ignore[arg-type, index]
    lines = list(measure_gates(bundle, one_phantom(), no_plans, backends=["onnxruntime"]))
    assert [line["precision"] for line in lines] == ["fp32", "fp16"]
    assert lines[0]["passed"] is False
    assert "differ from PyTorch by" in lines[0]["missed"]


@pytest.mark.usefixtures("no_gpu")
def test_engines_that_cannot_be_opened_are_lines_with_the_reason(bundle: Bundle) -> None:
    lines = list(measure_gates(bundle, small_calibration(), no_plans))
    assert len(lines) == 4
    assert all("needs an NVIDIA GPU" in line["reason"] for line in lines)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "engines"))


@pytest.fixture(scope="module")
def on_gpu(exported: Network) -> Network:
    if not torch.cuda.is_available():
        pytest.skip("needs a PyTorch built for CUDA")
    return replace(exported, model=copy.deepcopy(exported.model).to("cuda"))


@pytest.mark.gpu
def test_events_see_the_work_and_not_its_launch(on_gpu: Network) -> None:
    run, operations = matrix_product(torch.float32, side=4096)("cuda")
    clock = CudaClock()
    clock.seconds(run, 3)
    # No GPU of today does a petaflop in float32.
    assert operations / float(np.median(clock.seconds(run, 10))) < 1e15


@pytest.mark.gpu
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("arm", [arm for arm in ARMS if "tuned" not in arm.name], ids=lambda arm: arm.name)
def test_an_arm_is_timed(on_gpu: Network, arm: Arm) -> None:
    if not arm.name.startswith("pytorch"):
        require_packages("tensorrt" if arm.name.startswith("tensorrt") else "onnxruntime-cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        (line,) = measure_timings(on_gpu, Task("stage2", 2, 64), CudaClock(), SHORT, peaks={}, arms=[arm])
    assert line["reason"] is None
    assert line["median_s"] > 0


@pytest.mark.gpu
def test_onnxruntime_on_the_stream_of_pytorch_computes_what_pytorch_computes(on_gpu: Network) -> None:
    require_packages("onnxruntime-cuda")
    (arm,) = (each for each in ARMS if each.name == "onnxruntime-cuda-fp32")
    run: Callable[[], Any] = arm.open
    with torch.cuda.stream(torch.cuda.Stream()):
        tensors = run(on_gpu, SMALL)()
        expected = BASELINE.open(on_gpu, SMALL)()
        torch.cuda.synchronize()
    torch.testing.assert_close(tensors["tumor_prob"], expected, atol=1e-3, rtol=0)


@pytest.mark.gpu
def test_all_that_a_peak_is_made_of_runs(on_gpu: Network) -> None:
    assert [line["reason"] for line in measure_peaks(CudaClock(), "cuda")] == [None] * len(PEAKS)
