"""Training in two processes: each takes its share, both take the same steps, and one of them writes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.sampling import SliceSampler
from cascade_rt.data.slices import Case
from cascade_rt.errors import UsageError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.training.checkpoint import load_checkpoint
from cascade_rt.training.distributed import ALONE, Workers, join_workers
from cascade_rt.training.run_folder import BEST_NAME, CURVES_NAME, LOG_NAME

TRAIN = """
import os, sys
from pathlib import Path
import numpy as np
from safetensors.torch import save_file
from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.slices import Case
from cascade_rt.training.distributed import join_workers
from cascade_rt.training.loop import train

random = np.random.default_rng(0)
label = np.zeros((5, 80, 80), np.uint8)
label[:, 20:50, 20:50], label[:, 30:40, 30:40] = 1, 2
image = (random.normal(0, 60, label.shape) + 100 * label).astype(np.int16)
case = Case("squares", image, label, (2.5, 0.8, 0.8))
run, norm, stop = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
config = TrainConfig(epochs=(1, 1, 0), batch_size=2, learning_rate=1e-3, patch=64)
if norm == "instance":
    config = TrainConfig(epochs=(1, 0, 0), batch_size=2, learning_rate=1e-4)

def on_epoch(entry):
    print("epoch", entry["epoch"], flush=True)
    if stop == "stop":
        os._exit(3)

with join_workers() as workers:
    cascade = CascadeConfig(base_width=8, norm=norm)
    options = {"validation": [case], "resume": True, "workers": workers, "on_epoch": on_epoch}
    checkpoint = train([case], run, cascade, config, data="squares", **options)
    save_file({name: value.contiguous() for name, value in checkpoint.model.items()}, f"{run}_{workers.rank}")
"""


def run_workers(count: int, *arguments: object) -> list[tuple[int, str]]:
    """Run `TRAIN` in processes that know of each other as torchrun would tell them; their exit codes and outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, *map(str, arguments)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str]]]:
    run = tmp_path_factory.mktemp("two") / "run"
    return run, run_workers(2, run, "batch", "whole")


def test_two_processes_end_in_the_same_weights_bit_for_bit(two: tuple[Path, list[tuple[int, str]]]) -> None:
    run, results = two
    assert [code for code, _ in results] == [0, 0], results
    first, second = (load_file(f"{run}_{rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], tensor) for name, tensor in load_checkpoint(run).model.items())


def test_one_of_two_processes_writes_and_reports(two: tuple[Path, list[tuple[int, str]]]) -> None:
    run, results = two
    assert [output.split() for _, output in results] == [["epoch", "1", "epoch", "2"], []]
    assert {BEST_NAME, CURVES_NAME, LOG_NAME} < {path.name for path in run.iterdir()}
    history = load_checkpoint(run).history
    assert np.isfinite([[float(entry[loss]) for loss in ("organ_loss", "tumor_loss")] for entry in history]).all()


def test_resumed_distributed_training_ends_in_the_same_weights(
    two: tuple[Path, list[tuple[int, str]]], tmp_path: Path
) -> None:
    run = tmp_path / "parts"
    stopped = run_workers(2, run, "batch", "stop")
    assert (stopped[0][0], stopped[1][0] != 0) == (3, True)
    assert load_checkpoint(run).epochs_done == 1
    assert [code for code, _ in run_workers(2, run, "batch", "whole")] == [0, 0]
    whole, parts = load_checkpoint(two[0]), load_checkpoint(run)
    assert all(torch.equal(whole.model[name], parts.model[name]) for name in whole.model)
    assert whole.history == parts.history


def test_without_batch_statistics_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    for count in (1, 2):
        assert {code for code, _ in run_workers(count, tmp_path / str(count), "instance", "whole")} == {0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = CascadeModel(CascadeConfig(base_width=8, norm="instance")).state_dict()
    alone, together = (load_checkpoint(tmp_path / name).model for name in ("1", "2"))
    step = torch.cat([(alone[name] - start[name]).flatten() for name in start])
    difference = torch.cat([(alone[name] - together[name]).flatten() for name in start])
    assert difference.norm() < 0.01 * step.norm()


def test_torchrun_trains_through_the_command_line_and_prints_once(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    size = ["--shape", "16", "64", "64", "--cases", "2", "--base-width", "8", "--epochs", "1", "0", "0"]
    command = [*torchrun, "-m", "cascade_rt_cli", "train", "-o", str(tmp_path / "run"), *size]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["epoch", "run:"]


def sampler(slices: int, batch_size: int) -> SliceSampler:
    image = np.arange(slices, dtype=np.int16)[:, None, None] + np.zeros((1, 64, 64), np.int16)
    case = Case("numbered", image, np.ones(image.shape, np.uint8), (2.5, 0.8, 0.8))
    return SliceSampler.over([case], TrainConfig(slices="organ", batch_size=batch_size))


@pytest.mark.parametrize("workers", [2, 3])
def test_the_shares_of_all_processes_make_up_each_batch(workers: int) -> None:
    drawn = sampler(10, 3)
    whole = [batch.hu[:, 0, 0, 0].tolist() for batch in drawn.epoch(4)]
    parts = [list(drawn.epoch(4, rank, workers)) for rank in range(workers)]
    for members, *shares in zip(whole, *parts, strict=True):
        assert sorted(members) == sorted(slice_ for share in shares for slice_ in share.hu[:, 0, 0, 0].tolist())
        assert [share.share for share in shares] == [len(share.hu) / len(members) for share in shares]
        assert len(shares[0].hu) > 0


def test_a_parameter_without_a_gradient_anywhere_stays_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.all_reduce", lambda values: values.mul_(2))
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 3), "unused": torch.nn.Linear(2, 3)})
    model["used"](torch.ones(4, 2)).sum().backward()
    Workers(rank=1, count=2).add_gradients(model)
    assert torch.equal(model["used"].weight.grad, torch.full((3, 2), 8.0))
    assert model["unused"].weight.grad is None


def test_a_batch_smaller_than_the_number_of_processes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"train.batch_size 2 cannot be divided among 3 processes; .* at most 2"):
        Workers(count=3).check(2)


def test_a_process_without_its_own_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UsageError, match="too few GPUs for these processes; start at most 2"), join_workers():
        pass


def test_a_process_that_torchrun_did_not_start_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with join_workers() as workers:
        assert workers == ALONE
