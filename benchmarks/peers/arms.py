"""All that takes part: the peers, and this package on the engines that run here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from cascade_rt.engines import GPU_BACKENDS
from cascade_rt.errors import BackendUnavailableError
from cascade_rt.measuring.benchmarking.arms import Arm, all_arms
from cascade_rt.measuring.benchmarking.cascade_runner import open_arm
from cascade_rt.measuring.benchmarking.worker import OpenRunner, Runner

PLAIN, TORCH_BEST, MONAI, ONNXRUNTIME = "plain", "torch-best", "monai", "onnxruntime-default"
"""Peers (a), (b), (c) and (d)."""
OURS = "cascade-rt "
"""What the names of our own arms begin with."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A script that is measured beside this package."""

    name: str
    letter: str
    precision: str
    open: Callable[[Path], Runner]
    on_request: bool = False
    """Only measured where it is named: it takes minutes to start."""


def open_plain(bundle: Path) -> Runner:
    """Peer (a)."""
    return _runner("plain", "PlainScript", bundle)


def open_torch_best(bundle: Path, arithmetic: str, *, compiled: bool) -> Runner:
    """Peer (b)."""
    return _runner("torch_best", "TorchBest", bundle, arithmetic, compiled=compiled)


def open_monai(bundle: Path) -> Runner:
    """Peer (c)."""
    return _runner("monai_peer", "MonaiScript", bundle)


def open_onnxruntime(bundle: Path) -> Runner:
    """Peer (d)."""
    return _runner("onnxruntime_default", "OnnxRuntimeScript", bundle)


def _runner(module: str, name: str, *arguments: Any, **options: Any) -> Runner:
    """Open a script; BackendUnavailableError where a package that it needs is not installed."""
    import importlib

    try:
        script = getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(f"peer {module} needs a package that is not installed ({error.name})") from None
    return cast(Runner, script(*arguments, **options))


PEERS: tuple[Peer, ...] = (
    Peer(PLAIN, "a", "fp32", open_plain),
    Peer(TORCH_BEST, "b", "fp32", partial(open_torch_best, arithmetic="fp32", compiled=False)),
    Peer(f"{TORCH_BEST}:bf16", "b", "bf16", partial(open_torch_best, arithmetic="bf16", compiled=False)),
    Peer(f"{TORCH_BEST}-compiled", "b", "fp32", partial(open_torch_best, arithmetic="fp32", compiled=True)),
    Peer(f"{TORCH_BEST}-compiled:bf16", "b", "bf16", partial(open_torch_best, arithmetic="bf16", compiled=True)),
    Peer(
        f"{TORCH_BEST}-compiled:fp16",
        "b",
        "fp16",
        partial(open_torch_best, arithmetic="fp16", compiled=True),
        on_request=True,
    ),
    Peer(MONAI, "c", "fp32", open_monai),
    Peer(ONNXRUNTIME, "d", "fp32", open_onnxruntime),
)


def our_arms() -> tuple[Arm, ...]:
    """This package on every backend in every precision that is there for speed.

    Not the PyTorch baseline, which the peers stand for, and not float16 on a CPU.
    """
    return tuple(
        arm
        for arm in all_arms()
        if arm.backend != "pytorch" and (arm.precision != "fp16" or arm.backend in GPU_BACKENDS)
    )


def openers(bundle: Path, peers: tuple[Peer, ...], ours: tuple[Arm, ...]) -> Mapping[str, OpenRunner]:
    """What opens each arm on a bundle, by its name."""
    theirs: dict[str, OpenRunner] = {peer.name: partial(peer.open, bundle) for peer in peers}
    return theirs | {f"{OURS}{arm.name}": partial(open_arm, bundle, arm) for arm in ours}
