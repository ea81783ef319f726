"""A wider bundle that finds the same masks: the networks of a bundle, with every channel several times.

    python -m benchmarks.wide_bundle -o bundles/wide16 [--bundle BUNDLE] [--base-width 16] [--fp16]

How fast a network is does not depend on its weights, but what it finds decides how large the crops are and how many.
Networks of random weights find nonsense. Here a trained network is widened so that it computes the same function
(Net2Net, Chen et al. 2016): each channel stands there several times, and whatever reads it divides its weights by as
many. The bundle is for timing only.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.config import TrainConfig
from cascade_rt.errors import CascadeError, UsageError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.models.localization import SpatialAttention
from cascade_rt.models.weights import load_model
from cascade_rt.training.checkpoint import Checkpoint


def main() -> None:
    """Widen a bundle and export it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=embedded_bundle_path("phantom"))
    parser.add_argument("--base-width", type=int, default=16)
    parser.add_argument("--fp16", action="store_true", help="add graphs in half precision")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        bundle = make_wide_bundle(options.bundle, options.base_width, options.output, half=options.fp16)
    except CascadeError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{bundle}: base width {options.base_width}, for timing only")


def make_wide_bundle(source: Path, base_width: int, target: Path, *, half: bool = False) -> Path:
    """Export the networks of a bundle in another base width; returns its folder.

    Raises:
        UsageError: The base width is no multiple of that of the bundle.
        CascadeError: The bundle cannot be read or written, or the exported graphs do not find the same masks.
    """
    from cascade_rt_export.bundle_export import export_bundle

    bundle = read_bundle(source)
    wide = widen(load_model(bundle), base_width)
    checkpoint = Checkpoint(
        cascade=wide.config,
        train=TrainConfig(),
        data=f"{bundle.manifest.training['data']}; widened from base width {bundle.manifest.config.base_width}",
        epochs_done=0,
        model=wide.state_dict(),
        optimizer={},
    )
    export_bundle(checkpoint, target, half=half, on_step=lambda text: print(f"{text} ...", file=sys.stderr))
    return target


@torch.no_grad()
def widen(model: CascadeModel, base_width: int) -> CascadeModel:
    """The same function in a wider network, but for rounding.

    Copies of a channel stand side by side, so that concatenated maps are copies side by side as well.

    Raises:
        UsageError: The base width is no multiple of that of the model, or its normalisation mixes channels.
    """
    config = model.config
    if base_width % config.base_width:
        raise UsageError(f"base width {base_width} is not a multiple of {config.base_width}; choose one that is")
    if config.norm == "group":
        raise UsageError("group normalization cannot be widened, because its groups would change")
    wide = CascadeModel(replace(config, base_width=base_width))
    modules = dict(model.named_modules())
    for name, module in wide.named_modules():
        for kind, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            tensor.copy_(_widened(getattr(modules[name], kind), tensor.shape, _inputs_axis(module, kind)))
    for module in wide.modules():
        if isinstance(module, SpatialAttention):
            _keep_products(module, copies=module.query.out_channels // _query_width(model))
    return wide.eval()


def _inputs_axis(module: nn.Module, kind: str) -> int | None:
    """The axis of a tensor that runs along the channels that are read; None where there is none."""
    if kind != "weight":
        return None
    if isinstance(module, nn.ConvTranspose2d):
        return 0
    return 1 if isinstance(module, nn.Conv2d) else None


def _widened(tensor: Tensor, shape: torch.Size, inputs_axis: int | None) -> Tensor:
    """Repeat each channel along every axis that is longer in the new shape."""
    for axis, length in enumerate(shape):
        copies, rest = divmod(length, tensor.shape[axis])
        if rest:
            raise UsageError(f"{length} channels are not a multiple of {tensor.shape[axis]}; choose another base width")
        if copies > 1:
            tensor = tensor.repeat_interleave(copies, dim=axis)
            if axis == inputs_axis:
                tensor = tensor / copies
    return tensor


def _query_width(model: CascadeModel) -> int:
    """Channels of the queries of the spatial attention."""
    return next(module.query.out_channels for module in model.modules() if isinstance(module, SpatialAttention))


def _keep_products(attention: SpatialAttention, copies: int) -> None:
    """Divide the queries, as each product of query and key sums over every copy."""
    for tensor in attention.query.parameters():
        tensor.div_(copies)


if __name__ == "__main__":
    main()
