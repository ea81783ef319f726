"""Which GPU a command computes on, and what it says about numbers that no GPU has."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.cohort.run import Runner, run_here
from cascade_rt.run.inference import RunOptions
from cascade_rt_cli.main import main
from tests.cohort_runs import save_scan


@pytest.fixture
def opened_on(equal_gpus: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """A machine with four equal GPUs and a scan; the number of the GPU of each engine that is opened."""
    devices: list[int] = []

    def open_engines(*arguments: object) -> Engines:
        devices.append(arguments[-1])
        return Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))

    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", open_engines)
    monkeypatch.chdir(tmp_path)
    save_scan(Path("in", "good.nii.gz"))
    return devices


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.mark.parametrize(("options", "device"), [((), 0), (("--device", "2"), 2)])
def test_a_scan_is_computed_on_the_gpu_asked_for(opened_on: list[int], options: tuple[str, ...], device: int) -> None:
    assert run("infer", "in/good.nii.gz", *options).exit_code == 0
    assert opened_on == [device]


@pytest.fixture
def workers(opened_on: list[int], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """How many workers are started and the GPU of each way to open the cascade, instead of processes."""
    started: list[tuple[int, list[int]]] = []

    def run_in_workers(
        ways_to_open: Sequence[Callable[[], Cascade]], count: int, options: RunOptions, **_: object
    ) -> Runner:
        for open_cascade in ways_to_open:
            open_cascade().close()
        started.append((count, [*opened_on]))
        return run_here(ways_to_open[0], options)

    monkeypatch.setattr("cascade_rt.run.cohort.workers.run_in_workers", run_in_workers)
    return started


@pytest.mark.parametrize(
    ("options", "count", "devices"),
    [
        (("--devices", "2,0"), 2, [2, 0]),
        (("--devices", "0,1", "--workers", "5"), 5, [0, 1]),
        (("--device", "1", "--workers", "2"), 2, [1]),
    ],
)
def test_a_cohort_has_a_worker_for_each_gpu_or_more(
    workers: list[tuple[int, list[int]]], options: tuple[str, ...], count: int, devices: list[int]
) -> None:
    assert run("infer", "in", "-o", "out", *options).exit_code == 0
    assert workers == [(count, devices)]


@pytest.mark.usefixtures("opened_on")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--devices", "0,4"), "there is no GPU 4 here; choose from 0 (NVIDIA Test) and 1 (NVIDIA Test) and 2"),
        (("--devices", "0,x"), "--devices takes the numbers of GPUs, such as 0,1, not '0,x'"),
        (("--devices", ""), "--devices takes the numbers of GPUs, such as 0,1, not ''"),
        (("--devices", "1,0,1"), "--devices 1,0,1 names a GPU twice"),
        (("--devices", "0,1", "--workers", "1"), "--devices names 2 GPUs, more than --workers 1"),
        (("--devices", "0,1", "--device", "1"), "--device 1 is one GPU and --devices are several"),
        (("--devices", "0,1", "--backend", "onnxruntime"), "backend onnxruntime runs on the CPU; use --workers"),
    ],
)
def test_gpus_that_make_no_sense_are_refused_before_anything_is_written(options: tuple[str, ...], message: str) -> None:
    result = run("infer", "in", "-o", "out", *options)
    assert (result.exit_code, message in result.stderr, Path("out").exists()) == (2, True, False), result.stderr


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    "command",
    [
        ("infer", "scan.nii.gz", "--device", "1"),
        ("infer", "in", "-o", "out", "--devices", "0,1"),
        ("benchmark", "scan.nii.gz", "--device", "1"),
        ("evaluate", "--images", "in", "--labels", "in", "--device", "1"),
    ],
    ids=" ".join,
)
def test_a_gpu_asked_for_by_number_on_a_machine_without_one_is_one_sentence(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_scan(Path("in", "scan.nii.gz"))
    save_scan(Path("scan.nii.gz"))
    result = run(*command)
    assert (result.exit_code, "here: this machine has no NVIDIA driver" in result.stderr) == (7, True), result.stderr


@pytest.mark.usefixtures("equal_gpus")
def test_doctor_lists_all_gpus() -> None:
    told = run("doctor").stdout
    assert [line for line in told.splitlines() if line.startswith("  NVIDIA GPU")] == [
        f"  NVIDIA GPU {index}         NVIDIA Test, compute capability 9.0, 1 GiB" for index in range(4)
    ]
