"""Let half-precision convolutions read an image, and their own weights on it, without rounding either.

The image is passed as three channels, its high half, its low half and its high half again, for weights that are the
high halves, the high halves and the low halves of the original ones:

    image * weight  =  high * weight_high  +  low * weight_high  +  high * weight_low      (to about 21 bits)

A GPU pads a few input channels to four or eight anyway, so the additional ones cost nothing there, and matrix units add
the products in float32.
"""

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from cascade_rt_export.float_tensors import HALF, SINGLE

PARTS = 3
"""Channels that are made of each channel of an image."""


def weight_halves(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return the weight `[out, PARTS * in, row, col]` to apply to the halves of an image.

    Args:
        weight: The weight `[out, in, row, col]` to apply to the image.
    """
    # Values that are too large become infinite, as on any machine. The plan keeps the nodes that read them.
    with np.errstate(over="ignore", invalid="ignore"):
        high = weight.astype(np.float16)
        low = (weight - high.astype(np.float32)).astype(np.float16)
    return np.concatenate([high, high, low], axis=1)


def image_halves(image: str) -> tuple[list[NodeProto], str]:
    """Return the nodes that make the halves `[batch, PARTS * channel, row, col]` of an image, and the tensor's name.

    Args:
        image: Name of the float32 tensor `[batch, channel, row, col]`.
    """
    high, back, rest, low, halves = (f"{image}/{part}" for part in ("high", "back", "rest", "low", "halves"))
    nodes = [
        helper.make_node("Cast", [image], [high], name=f"cast/{high}", to=HALF),
        helper.make_node("Cast", [high], [back], name=f"cast/{back}", to=SINGLE),
        helper.make_node("Sub", [image, back], [rest], name=rest),
        helper.make_node("Cast", [rest], [low], name=f"cast/{low}", to=HALF),
        helper.make_node("Concat", [high, low, high], [halves], name=halves, axis=1),
    ]
    return nodes, halves
