"""The networks that are timed: random weights, as PyTorch modules and as ONNX graphs in both precisions."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.lines import reason_of
from cascade_rt.bundles.files import graph_name
from cascade_rt.common.tensors import PRECISIONS, STAGE_SPECS, STAGES, Precision, Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.base import Array
from cascade_rt.engines.shape_profiles import shape_profiles
from cascade_rt.errors import BundleError
from cascade_rt.models.cascade_model import CascadeModel, Stage1Graph, Stage2Graph

SEED = 0
CALIBRATION_SIDE = 128
"""Pixels of the noise that statistics and half precision are made with: kernels take the same time for any numbers."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is computed: a stage on a batch of square images."""

    stage: Stage
    batch: int
    side: int


@dataclass(frozen=True, slots=True)
class Network:
    """Both stages, and as much of their graphs as could be made."""

    model: CascadeModel
    graphs: dict[tuple[Stage, Precision], Path] = field(default_factory=dict)
    reasons: dict[tuple[Stage, Precision], str] = field(default_factory=dict)
    """Why a graph is missing."""
    half_shares: dict[Stage, float] = field(default_factory=dict)
    """Share of the multiplications of convolutions that the graph in half precision does in it."""
    multiplications: dict[Stage, int] = field(default_factory=dict)
    """Those of all convolutions on one usual image, as `count_work` counts them."""

    @property
    def config(self) -> CascadeConfig:
        """Of the cascade."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def stage(self, stage: Stage) -> nn.Module:
        """A stage as it is deployed, in evaluation mode."""
        graph: nn.Module = Stage1Graph(self.model) if stage == "stage1" else Stage2Graph(self.model)
        return graph.eval()

    def graph(self, stage: Stage, precision: Precision) -> Path:
        """The file of a graph.

        Raises:
            BundleError: It could not be made; with the reason.
        """
        if (stage, precision) not in self.graphs:
            reason = self.reasons.get((stage, precision), "it was not exported")
            raise BundleError(f"no {precision} graph of {stage}: {reason}")
        return self.graphs[stage, precision]

    def describe_graph(self, stage: Stage, precision: Precision) -> dict[str, Any]:
        """What there is to say of a graph, or why there is none."""
        return {
            "stage": stage,
            "precision": precision,
            "base_width": self.config.base_width,
            "multiplications": self.multiplications.get(stage),
            "half_share": self.half_shares.get(stage) if precision == "fp16" else None,
            "reason": self.reasons.get((stage, precision)),
        }

    def image(self, task: Task) -> Tensor:
        """Noise in the range of a stage's input, on the device: `[batch, 1, row, col]`."""
        return torch.from_numpy(noise(task)).to(self.device)


def usual_side(stage: Stage, config: CascadeConfig) -> int:
    """Height and width that the engines of a stage are tuned for, in pixels."""
    return shape_profiles(stage, config)[0].usual[2]


def noise(task: Task) -> Array:
    """Images `[batch, 1, row, col]` in the range of a stage's input."""
    images = np.random.default_rng(SEED).random((task.batch, 1, task.side, task.side), dtype=np.float32)
    return images * 340 - 100 if task.stage == "stage1" else images


def random_network(base_width: int, device: str = "cpu") -> Network:
    """The cascade of the paper in some width; its normalisations have the statistics of noise."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = CascadeModel(CascadeConfig(base_width=base_width)).to(device).train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # The mean of all that was seen, so that one pass is enough.
                module.momentum = None
        with torch.no_grad():
            organ = model.find_organ(torch.from_numpy(noise(Task("stage1", 2, CALIBRATION_SIDE))).to(device))
            model.stage2(organ.image)
    return Network(model.eval())


def count_work(network: Network) -> None:
    """Count the multiplications of each stage on one usual image, by running it: one per weight and position.

    What is counted is the network, whatever the arms make of it: an exported graph has a few more.
    """
    for stage in STAGES:
        counted: list[int] = []
        graph = network.stage(stage)
        layers = [layer for layer in graph.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        hooks = [layer.register_forward_hook(partial(_count, counted)) for layer in layers]
        with torch.inference_mode():
            graph(network.image(Task(stage, 1, usual_side(stage, network.config))))
        for hook in hooks:
            hook.remove()
        network.multiplications[stage] = sum(counted)


def _count(counted: list[int], layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    """Note the multiplications of one convolution; a transposed one applies its weights where it reads."""
    weight: Any = layer.weight
    applied_at = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
    counted.append(weight.numel() * applied_at.shape[2] * applied_at.shape[3])


def add_graphs(
    network: Network, folder: Path, say: Callable[[str], None], precisions: Collection[Precision] = PRECISIONS
) -> None:
    """Export both stages, and count their work; what fails is a reason in the network.

    Args:
        network: It has to be on the CPU.
        folder: Where the graphs go.
        say: Called with a sentence before each step.
        precisions: Which graphs are made; half precision takes long for wide networks.
    """
    count_work(network)
    for stage in STAGES:
        try:
            _add_graphs_of(network, stage, folder, say, precisions)
        except Exception as error:  # noqa: BLE001  a package may be missing; the other arms do without
            for precision in precisions:
                if (stage, precision) not in network.graphs:
                    network.reasons[stage, precision] = reason_of(error)


def _add_graphs_of(
    network: Network, stage: Stage, folder: Path, say: Callable[[str], None], precisions: Collection[Precision]
) -> None:
    from cascade_rt_export.onnx_graph import onnx_from_stage

    say(f"exporting {stage}")
    single = onnx_from_stage(network.model, stage)
    _keep(network, single, stage, "fp32", folder)

    if "fp16" not in precisions:
        return
    # These run the graph on the CPU and need ONNX Runtime, which the export itself does not.
    from cascade_rt_export.conv_work import half_share
    from cascade_rt_export.half_precision import half_precision_graph

    def feeds(side: int) -> dict[str, Array]:
        return {STAGE_SPECS[stage].inputs[0].name: noise(Task(stage, 1, side))}

    say(f"converting {stage} to half precision")
    half = half_precision_graph(single, [feeds(CALIBRATION_SIDE)], source="noise").graph
    network.half_shares[stage] = half_share(half, feeds(CALIBRATION_SIDE))
    _keep(network, half, stage, "fp16", folder)


def _keep(network: Network, graph: Any, stage: Stage, precision: Precision, folder: Path) -> None:
    import onnx

    path = folder / graph_name(stage, precision)
    onnx.save(graph, path)
    network.graphs[stage, precision] = path
