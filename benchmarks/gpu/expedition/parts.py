"""The parts of an expedition, in order of worth. Only names stand here: each is imported in its own process."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.expedition.settings import Settings

Write = Callable[[str, Mapping[str, Any]], None]
"""Writes a line at once: what was measured, and the measurement with a `reason` that says why there is none."""


class PartFunction(Protocol):
    """Does a part."""

    def __call__(self, settings: Settings, write: Write, deadline: Deadline) -> None:
        """Write a line for each measurement as it comes. After the deadline nothing is begun; later it is killed."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part, which runs in a process of its own and is killed at its deadline."""

    name: str
    seconds: float
    """How long it may take. What is left of the whole may be less."""
    module: str
    """Where its function `run` is."""
    what: str
    background: bool = False
    """Whether the next parts begin at once."""
    after: str = ""
    """A part in the background that has to end first, well or not."""

    def load(self) -> PartFunction:
        """Import its function."""
        function: PartFunction = importlib.import_module(f"benchmarks.gpu.expedition.{self.module}").run
        return function


PARTS: tuple[Part, ...] = (
    Part("pycuda", 240, "pycuda_build", "build pycuda from the carried sources", background=True),
    Part("driver", 60, "driver", "the kernel for masks, copies of rectangles, CUDA graphs, on cuda-bindings alone"),
    Part("session", 150, "session", "the TensorRT engine and bridge, with CuPy in TensorRT's place", after="pycuda"),
    Part("pytorch", 160, "networks", "the convolutions near the image; the networks in PyTorch, eager"),
    Part("scan", 120, "scan", "whole scans and the gate: PyTorch on the GPU beside the CPU"),
    Part("compile", 90, "compiled", "torch.compile with CUDA graphs, stage 1"),
    Part("engines", 1500, "engines", "ONNX Runtime CUDA and TensorRT: whole scans, the gate, the networks"),
)


def part_named(name: str) -> Part:
    """The part of a name."""
    return next(part for part in PARTS if part.name == name)
