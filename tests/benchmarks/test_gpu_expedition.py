"""The expedition to a borrowed GPU: its runner, its parts where no GPU is, what it packs and what it sums up."""

import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import pack
from benchmarks.gpu.clock import Turns, WallClock
from benchmarks.gpu.deadline import NEVER, NO_TIME
from benchmarks.gpu.expedition import compiled, driver, engines, networks, session
from benchmarks.gpu.expedition.__main__ import go, sized
from benchmarks.gpu.expedition.convolutions import measure_convolutions
from benchmarks.gpu.expedition.packed import install_packed
from benchmarks.gpu.expedition.parts import PARTS, Part, part_named
from benchmarks.gpu.expedition.pycuda_build import run as build_pycuda
from benchmarks.gpu.expedition.runner import Outcome, Running, last_line, run_parts
from benchmarks.gpu.expedition.scan import compare_devices
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.expedition.stand_in import Counts, on_host
from benchmarks.gpu.expedition.summary import RESULTS, read_lines, summary
from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import STAGE_SPECS, STAGES, Stage
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import Engines
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import OutputError, UsageError

ROOT = Path(__file__).parents[2]
TINY = Settings(
    device="cpu",
    base_width=8,
    side=64,
    batches=(1,),
    rounds=1,
    turn_seconds=1e-6,
    scan_shape=(4, 64, 64),
    calibration_side=64,
)
MISSING_THERE = ("nibabel", "isal", "openvino", "tensorrt", "pycuda", "monai", "pydicom")


def a_part(name: str, *, seconds: float = 600, background: bool = False, after: str = "") -> Part:
    return Part(name, seconds, "", name, background, after)


def run_scripts(
    folder: Path, scripts: Mapping[Part, str], *, seconds: float = 600
) -> tuple[tuple[Outcome, ...], dict[str, str]]:
    """Run scripts of Python as parts; returns how they ended and what they printed."""
    printed: dict[str, str] = {}

    def launch(part: Part, allowed: float) -> Running:
        command = [sys.executable, "-c", textwrap.dedent(scripts[part])]
        return Running(part, command, os.environ, folder / f"{part.name}.log", allowed)

    def on_end(outcome: Outcome, output: str) -> None:
        printed[outcome.part] = output

    return run_parts(scripts, launch, on_end, seconds), printed


def ends(process: int) -> bool:
    """Whether a process that was killed ends, which takes a moment; one that only waits to be collected has ended."""
    status = Path(f"/proc/{process}/stat")
    for _ in range(3000):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_part_that_succeeds_is_done(tmp_path: Path) -> None:
    outcomes, printed = run_scripts(tmp_path, {a_part("a"): "print('hello')"})
    assert [(each.status, each.reason) for each in outcomes] == [("done", None)]
    assert printed == {"a": "hello\n"}


def test_a_part_is_killed_at_its_deadline(tmp_path: Path) -> None:
    outcomes, _ = run_scripts(tmp_path, {a_part("a", seconds=0.5): "import time; time.sleep(600)"})
    assert [(each.status, each.seconds) for each in outcomes] == [("timed out", 0.5)]


def test_what_a_part_started_is_killed_with_it(tmp_path: Path) -> None:
    script = """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
    """
    _, printed = run_scripts(tmp_path, {a_part("a"): script})
    assert ends(int(printed["a"]))


def test_a_failure_has_the_last_line_that_was_printed(tmp_path: Path) -> None:
    outcomes, _ = run_scripts(tmp_path, {a_part("a"): "raise ValueError('no such thing')"})
    assert [(each.status, each.reason) for each in outcomes] == [("failed", "ValueError: no such thing")]


def test_a_crash_has_the_signal(tmp_path: Path) -> None:
    outcomes, _ = run_scripts(tmp_path, {a_part("a"): "import os; print('x', flush=True); os.kill(os.getpid(), 11)"})
    assert outcomes[0].reason == "killed by SIGSEGV: x"


def test_a_failure_does_not_stop_the_next(tmp_path: Path) -> None:
    outcomes, _ = run_scripts(tmp_path, {a_part("a"): "raise SystemExit(1)", a_part("b"): ""})
    assert [each.status for each in outcomes] == ["failed", "done"]


def test_what_is_in_the_background_does_not_hold_up_the_next(tmp_path: Path) -> None:
    waiting = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    scripts = {a_part("a", background=True): waiting, a_part("b"): f"open({str(tmp_path / 'go')!r}, 'w')"}
    outcomes, _ = run_scripts(tmp_path, scripts)
    assert [(each.part, each.status) for each in outcomes] == [("b", "done"), ("a", "done")]


def test_a_part_waits_for_the_one_that_it_comes_after(tmp_path: Path) -> None:
    made = str(tmp_path / "made")
    scripts = {
        a_part("a", background=True): f"import time; time.sleep(0.3); open({made!r}, 'w')",
        a_part("b", after="a"): f"open({made!r})",
    }
    outcomes, _ = run_scripts(tmp_path, scripts)
    assert [(each.part, each.status) for each in outcomes] == [("a", "done"), ("b", "done")]


def test_without_time_no_part_is_begun(tmp_path: Path) -> None:
    scripts = {a_part("a", seconds=0.2): "import time; time.sleep(600)", a_part("b"): ""}
    outcomes, _ = run_scripts(tmp_path, scripts, seconds=0.2)
    assert outcomes[1] == Outcome("b", "not begun", 0.0, NO_TIME)


def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    started: list[int] = []

    def launch(part: Part, allowed: float) -> Running:
        if part.name == "b":
            raise KeyboardInterrupt
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        running = Running(part, command, os.environ, tmp_path / "log", allowed)
        started.append(running._process.pid)
        return running

    with pytest.raises(KeyboardInterrupt):
        run_parts([a_part("a", background=True), a_part("b")], launch, lambda *_: None, 600)
    assert ends(started[0])


def test_lines_are_there_although_the_part_was_killed(tmp_path: Path) -> None:
    script = f"""
        import os, pathlib, sys
        sys.path.insert(0, {str(ROOT)!r})
        from benchmarks.gpu.lines import Lines
        Lines(pathlib.Path({str(tmp_path / RESULTS)!r}), {{}}).write("timing", {{"name": "x", "reason": None}})
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    """
    outcomes, _ = run_scripts(tmp_path, {a_part("a"): script})
    assert outcomes[0].status == "failed"
    assert [line["name"] for line in read_lines(tmp_path / RESULTS)] == ["x"]


def test_the_last_line_says_which_parts_ran() -> None:
    outcomes = [Outcome("a", "done", 1), Outcome("b", "timed out", 2), Outcome("c", "done", 3)]
    assert last_line(outcomes) == "done: a, c; timed out: b"


def test_parts_come_after_parts_in_the_background_that_are_listed_before() -> None:
    for index, part in enumerate(PARTS):
        assert not part.after or part.after in [each.name for each in PARTS[:index] if each.background]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_part_has_a_function(part: Part) -> None:
    assert callable(part.load())


def test_settings_survive_as_text() -> None:
    assert Settings.from_json(TINY.to_json()) == TINY


def test_small_images_come_with_a_small_scan() -> None:
    assert sized(Settings(side=64)).scan_shape == (8, 64, 64)


@pytest.fixture(scope="module")
def without_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the parts that need a driver, where there is none and much is not installed."""
    folder = tmp_path_factory.mktemp("hidden")
    # A finder that finds nothing, as where a package is not installed: an error would end who only asks.
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Filtered:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        hidden = name.partition('.')[0] in {MISSING_THERE!r}\n"
        "        return None if hidden else PathFinder.find_spec(name, path, target)\n"
        "    find_distributions = PathFinder.find_distributions\n"
        "sys.meta_path[:] = [Filtered if finder is PathFinder else finder for finder in sys.meta_path]\n"
        "import cascade_rt.engines.nvidia\n"
        "cascade_rt.engines.nvidia._DRIVER = 'no_such_driver.so'\n"
    )
    output = tmp_path_factory.mktemp("results") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        parts = tuple(part_named(name) for name in ("pycuda", "driver", "session", "pytorch"))
        go(output, parts, 3000, Settings(commit="abc1234"), None)
    return output


def test_without_a_driver_each_part_says_so(without_driver: Path) -> None:
    reasons = {line["name"]: line["reason"] for line in read_lines(without_driver / RESULTS) if line["kind"] == "part"}
    assert reasons.pop("pycuda").startswith("no sources of pycuda were carried")
    assert len(reasons) == 3
    assert all("this machine has no NVIDIA driver" in reason for reason in reasons.values())


def test_every_line_says_what_it_was_measured_with(without_driver: Path) -> None:
    lines = read_lines(without_driver / RESULTS)
    assert all({"kind", "date", "commit", "versions", "gpu", "reason"} <= line.keys() for line in lines)
    assert lines[0]["commit"] == "abc1234"


def test_the_last_of_the_results_says_which_parts_ran(without_driver: Path) -> None:
    line = read_lines(without_driver / RESULTS)[-1]
    assert line["kind"] == "expedition"
    assert set(line["ended"].removeprefix("failed: ").split(", ")) == {"driver", "pycuda", "session", "pytorch"}


def test_a_summary_has_a_row_for_each_part(without_driver: Path) -> None:
    text = summary(without_driver)
    assert text.startswith("no GPU, driver -, commit abc1234")
    assert sum("no NVIDIA driver" in line for line in text.splitlines()) == 3


def test_a_summary_reads_every_kind_of_line(tmp_path: Path) -> None:
    timing = {"stage": "stage1", "side": 512, "batch": 4, "arm": "pytorch-amp", "median_s": 0.0125, "speedup": 2.0}
    lines: list[dict[str, Any]] = [
        {"kind": "driver", "part": "driver", "name": "masks", "passed": False, "different": 3},
        {"kind": "driver", "part": "driver", "name": "graph", "passed": False, "reason": "EngineError: no"},
        {"kind": "timing", "part": "pytorch", **timing},
        {"kind": "timing", "part": "pytorch", "arm": "pytorch-tf32", "stage": "stage1", "reason": NO_TIME},
        {"kind": "peak", "part": "pytorch", "name": "matmul_fp16", "value": 712.0, "unit": "TFLOP/s"},
        {"kind": "convolution", "part": "pytorch", "name": "image-fp32", "median_s": 1e-3, "relative_error": 1e-8},
        {"kind": "gate", "part": "scan", "backend": "pytorch", "precision": "fp32", "missed": None},
        {"kind": "whole_scan", "part": "engines", "kind_of_line": "left_out", "arm": "tensorrt:fp16"},
    ]
    (tmp_path / RESULTS).write_text("".join(json.dumps({"reason": None, **line}) + "\n" for line in lines))
    text = summary(tmp_path)
    for expected in (
        'driver masks: FAILED {"different": 3}',
        "driver graph: FAILED, EngineError: no",
        "stage1 512 x 512, batch 4, pytorch-amp: 12.500 ms, 2.00 times as fast as pytorch-eager-fp32",
        "timing pytorch-tf32 stage1: no time was left",
        "peak matmul_fp16: 712.0 TFLOP/s",
        "convolution image-fp32: 1.000 ms, relative error 1.0e-08",
        "gate pytorch fp32: within the limits",
        "left_out tensorrt:fp16",
    ):
        assert expected in text


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results"):
        summary(tmp_path)


def test_what_weighs_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small.whl").write_bytes(bytes(10))
    (tmp_path / "large.whl").write_bytes(bytes(100))
    with pytest.raises(OutputError, match=r"the heaviest is large\.whl"):
        pack.packed_bytes(tmp_path, most=100)


def test_what_may_travel_is_weighed(tmp_path: Path) -> None:
    (tmp_path / "small.whl").write_bytes(bytes(10))
    assert pack.packed_bytes(tmp_path) == 10


def test_wheels_are_for_the_python_of_the_machine_and_pycuda_comes_as_sources() -> None:
    wheels, sources = pack.downloads(Path("packed"))
    assert wheels[wheels.index("--python-version") + 1] == "3.12"
    assert {"isal", "nibabel", "--only-binary=:all:", "--no-deps"} <= set(wheels)
    assert sources[-1] == "pycuda"
    assert "--no-binary=pycuda" in sources


def test_a_folder_without_wheels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no wheels"):
        install_packed(tmp_path, tmp_path / "site")


def test_pycuda_that_was_not_carried_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="no sources of pycuda were carried"):
        build_pycuda(TINY, lambda *_: None, NEVER)


def collected(run: Any, settings: Settings = TINY) -> list[tuple[str, Mapping[str, Any]]]:
    lines: list[tuple[str, Mapping[str, Any]]] = []
    run(settings, lambda kind, line: lines.append((kind, line)), NEVER)
    return lines


def test_the_part_of_pytorch_runs() -> None:
    lines = collected(networks.run)
    assert [line["reason"] for _, line in lines] == [None] * len(lines)
    assert [kind for kind, _ in lines] == ["peak", *["convolution"] * 12, *["timing"] * 6]


def test_the_part_that_compiles_times_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "RACES", (("pytorch-eager-fp32",),))
    ((kind, line),) = collected(compiled.run)
    assert (kind, line["stage"], line["batch"], line["reason"]) == ("timing", "stage1", 4, None)


def test_a_scan_on_the_cpu_is_what_it_is_on_the_cpu() -> None:
    line = compare_devices(read_bundle(embedded_bundle_path("phantom")), make_phantom(3, (2, 64, 64)), "cpu")
    assert (line["different"], line["reason"]) == (0, None)


def test_without_engines_no_graph_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "installed", lambda _: False)
    ((kind, line),) = engines.networks(TINY, NEVER)
    assert (kind, line["reason"]) == ("timing", "neither TensorRT nor an ONNX Runtime with CUDA is installed")


def test_halves_keep_what_a_half_rounds_away() -> None:
    lines = measure_convolutions(8, 64, "cpu", WallClock(), Turns(1, 1e-6), NEVER)
    errors = {line["name"]: line["relative_error"] for line in lines}
    assert errors["image-fp16"] > 1e-5
    assert errors["image-three-halves"] < 1e-6
    assert errors["image-fp32"] == 0


def test_adversarial_floats_have_every_verdict() -> None:
    masks = driver.expected_masks(driver.adversarial_floats(10_000))
    assert set(np.unique(masks)) == {0, 1, 2}


def test_the_limits_of_the_kernel_are_among_the_floats() -> None:
    values = driver.adversarial_floats(10_000)
    assert {np.float32(0.5), np.nextafter(np.float32(0.5), np.float32(0))} <= set(values[np.isfinite(values)])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> session.Site:
    """A site whose GPU is the host."""
    monkeypatch.setattr(session, "stand_in_engines", session.host_engines)
    voxels = np.ascontiguousarray(make_phantom(session.SEED, (4, 64, 64)).hu)
    return session.Site(voxels, Counts(), None)


def test_the_stand_in_finds_both_organ_and_tumor(site: session.Site) -> None:
    found = session.check_parity(site)
    assert found["passed"]
    assert found["organ"] > found["tumor"] > 0


def test_a_session_that_computes_something_else_is_noticed(site: session.Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(stage: Stage) -> FakeEngine:
        return FakeEngine(stage, lambda inputs: on_host(stage, {name: array + 9 for name, array in inputs.items()}))

    monkeypatch.setattr(session, "stand_in_engines", lambda: Engines(*map(other, STAGES)))
    assert session.check_parity(site)["passed"] is False


def test_an_error_of_a_check_is_a_line(site: session.Site) -> None:
    def check(_: session.Site) -> dict[str, Any]:
        raise RuntimeError("cuMemAlloc failed")

    assert session._checked(check, site) == {
        "passed": False,
        "reason": "RuntimeError: cuMemAlloc failed",
        "warnings": [],
    }


@pytest.mark.parametrize("stage", STAGES)
def test_the_stand_in_returns_what_a_stage_returns(stage: Any) -> None:
    (source,) = STAGE_SPECS[stage].inputs
    outputs = on_host(stage, {source.name: np.zeros((2, 1, 64, 80), np.float32)})
    assert list(outputs) == [spec.name for spec in STAGE_SPECS[stage].outputs]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["driver", "session"])
def test_on_a_gpu_every_check_passes(tmp_path: Path, name: str) -> None:
    emulation = pytest.importorskip("tests.cuda_emulator.driver", reason="cannot tell whether the driver is emulated")
    settings = Settings(emulated=emulation.is_emulated(), scan_shape=(8, 128, 128))
    (outcome,) = go(tmp_path / "out", [part_named(name)], 600, settings, None)
    assert outcome.status == "done", outcome.reason
    checks = [line for line in read_lines(tmp_path / "out" / RESULTS) if line["kind"] == name]
    assert [line for line in checks if line["passed"] is False] == []
