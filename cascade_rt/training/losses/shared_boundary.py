"""The shared-boundary metric and its loss (Eq. 14 to 16).

Boundaries are counted in unit edges between 4-neighbours: l_ij is the number of edges with class i on one side and
class j on the other, l_i is the perimeter of class i, and m_ij = l_ij / l_i is the share of that perimeter that i has
in common with j. Each edge is a product of the two pixels, so the same sums work for class maps and for probabilities.
On class maps they are exact counts.

The paper compares the matrix of the argmax with that of the label, but an argmax has no gradient. BoundaryMode selects
the substitute.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cascade_rt.config import BoundaryMode

SHORTEST_PERIMETER = 1.0
"""Lower bound for perimeters. No class with a boundary has a shorter one, so it changes nothing on class maps. On
probabilities it keeps the gradient of an entry from exceeding that of its edge count."""


def boundary_matrix(maps: Tensor, *, count_frame: bool = True) -> Tensor:
    """Compute the share of each class's perimeter that it has in common with each other class (Eq. 14).

    Args:
        maps: `[batch, class, row, col]`, float: 0 and 1, or probabilities that sum to 1 over the classes.
        count_frame: Whether edges on the image frame belong to the perimeter. Without them, the matrix of two classes
            is always [[0, 1], [1, 0]], whatever their shapes.

    Returns:
        `[batch, class, class]`: m_ij. The diagonal and the rows of absent classes are 0, and so is their gradient.
    """
    shared = shared_edges(maps)
    perimeter = shared.sum(dim=2)
    if count_frame:
        perimeter = perimeter + frame_edges(maps)
    perimeter = perimeter.unsqueeze(2)
    return torch.where(perimeter > 0, shared / perimeter.clamp(min=SHORTEST_PERIMETER), 0.0)


def shared_edges(maps: Tensor) -> Tensor:
    """Count the edges l_ij between classes: `[batch, class, row, col]` to a symmetric `[batch, class, class]`."""
    down = _edges(maps[:, :, :-1], maps[:, :, 1:])
    right = _edges(maps[:, :, :, :-1], maps[:, :, :, 1:])
    directed = down + right
    other_class = 1 - torch.eye(maps.shape[1], dtype=maps.dtype, device=maps.device)
    return (directed + directed.mT) * other_class


def frame_edges(maps: Tensor) -> Tensor:
    """Count each class's edges on the frame: `[batch, class, row, col]` to `[batch, class]`. Corners have two."""
    rows = maps[:, :, 0].sum(dim=2) + maps[:, :, -1].sum(dim=2)
    cols = maps[:, :, :, 0].sum(dim=2) + maps[:, :, :, -1].sum(dim=2)
    return rows + cols


def class_probabilities(organ_prob: Tensor, tumor_prob: Tensor, classes: int) -> Tensor:
    """Combine the outputs of both stages into class probabilities.

    Three classes are background, pancreas and tumor: (1 - T)(1 - P), (1 - T) P and T. Stage 2 takes precedence over
    stage 1. Two classes are 1 - T and T, the final output of the cascade. They are for data in which both stages
    segment the pancreas. The gradient then reaches stage 1 through the saliency.

    Args:
        organ_prob: P of stage 1, `[batch, 1, row, col]`.
        tumor_prob: T of stage 2, the same shape: pasted into the frame, 0 outside its crops.
        classes: 2 or 3.

    Returns:
        `[batch, class, row, col]`, summing to 1 over the classes.
    """
    if classes == 2:
        return torch.cat([1 - tumor_prob, tumor_prob], dim=1)
    rest = 1 - tumor_prob
    return torch.cat([rest * (1 - organ_prob), rest * organ_prob, tumor_prob], dim=1)


def class_maps(index: Tensor, classes: int) -> Tensor:
    """One-hot encode class indices: `[batch, row, col]` to `[batch, class, row, col]`, float32."""
    return F.one_hot(index.long(), classes).movedim(-1, 1).float()


def predicted_matrix(prob: Tensor, mode: BoundaryMode, *, count_frame: bool = True) -> Tensor:
    """Compute the boundary matrix of a prediction (Eq. 15), as `boundary_matrix` returns it.

    Args:
        prob: Class probabilities, `[batch, class, row, col]`.
        mode: `soft` gives the matrix of the probabilities. The other modes give the matrix of the argmax and differ in
            its gradient: `hard` has none. `ste` (straight-through estimator) passes it through each pixel
            (y = argmax + p - p, the last p held fixed). `ste_matrix` uses the gradient of the soft matrix.
        count_frame: See `boundary_matrix`.
    """
    if mode == "soft":
        return boundary_matrix(prob, count_frame=count_frame)
    maps = class_maps(prob.detach().argmax(dim=1), prob.shape[1])
    if mode == "ste":
        maps = _with_gradient_of(prob, maps)
    matrix = boundary_matrix(maps, count_frame=count_frame)
    if mode == "ste_matrix":
        matrix = _with_gradient_of(boundary_matrix(prob, count_frame=count_frame), matrix)
    return matrix


def shared_boundary_loss(
    prob: Tensor, target: Tensor, *, mode: BoundaryMode = "ste", count_frame: bool = True
) -> Tensor:
    """Compute the mean squared difference between the boundary matrices of prediction and label (Eq. 16).

    Args:
        prob: `[batch, class, row, col]`; see `class_probabilities`.
        target: `[batch, row, col]`, the class of each pixel.
        mode: See `predicted_matrix`.
        count_frame: See `boundary_matrix`.
    """
    found = predicted_matrix(prob.float(), mode, count_frame=count_frame)
    wanted = boundary_matrix(class_maps(target, prob.shape[1]), count_frame=count_frame)
    return F.mse_loss(found, wanted)


def _with_gradient_of(source: Tensor, value: Tensor) -> Tensor:
    return value + (source - source.detach())


def _edges(first: Tensor, second: Tensor) -> Tensor:
    """Sum first_i second_j over the pixels: two `[batch, class, row, col]` to one `[batch, class, class]`."""
    return (first.unsqueeze(2) * second.unsqueeze(1)).sum(dim=(3, 4))
