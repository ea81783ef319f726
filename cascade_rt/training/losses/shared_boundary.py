"""The shared-boundary metric and its loss (Eq. 14 to 16).

A boundary is counted in unit edges between 4-neighbours: l_ij is the number of edges with class i on one side and
class j on the other, l_i the perimeter of class i, and m_ij = l_ij / l_i the share of that perimeter that i has in
common with j. Each edge is a product of the two pixels, so the same sums take class maps and probabilities, and on
class maps they are the exact count.

The paper compares the matrix of the argmax with that of the label, and an argmax has no gradient. BoundaryMode says
what stands in for it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cascade_rt.config import BoundaryMode

SHORTEST_PERIMETER = 1.0
"""Perimeters are taken to be at least this. No class that has a boundary has a shorter one, so it changes nothing on
class maps; on probabilities it keeps an entry from being steeper than its edge count."""


def boundary_matrix(maps: Tensor, *, count_frame: bool = True) -> Tensor:
    """Share of each class's perimeter that it has in common with each other class (Eq. 14).

    Args:
        maps: `[batch, class, row, col]`, float: 0 and 1, or probabilities that sum to 1 over the classes.
        count_frame: Whether edges of pixels on the image frame belong to the perimeter. Without them the matrix of two
            classes is [[0, 1], [1, 0]] whatever their shape.

    Returns:
        `[batch, class, class]`: m_ij, 0 on the diagonal and in the rows of absent classes, whose gradient is 0 too.
    """
    shared = shared_edges(maps)
    perimeter = shared.sum(dim=2)
    if count_frame:
        perimeter = perimeter + frame_edges(maps)
    perimeter = perimeter.unsqueeze(2)
    return torch.where(perimeter > 0, shared / perimeter.clamp(min=SHORTEST_PERIMETER), 0.0)


def shared_edges(maps: Tensor) -> Tensor:
    """l_ij, the edges between each two classes: `[batch, class, row, col]` to a symmetric `[batch, class, class]`."""
    down = _edges(maps[:, :, :-1], maps[:, :, 1:])
    right = _edges(maps[:, :, :, :-1], maps[:, :, :, 1:])
    directed = down + right
    other_class = 1 - torch.eye(maps.shape[1], dtype=maps.dtype, device=maps.device)
    return (directed + directed.mT) * other_class


def frame_edges(maps: Tensor) -> Tensor:
    """Edges of each class on the image frame: `[batch, class, row, col]` to `[batch, class]`. Corners have two."""
    rows = maps[:, :, 0].sum(dim=2) + maps[:, :, -1].sum(dim=2)
    cols = maps[:, :, :, 0].sum(dim=2) + maps[:, :, :, -1].sum(dim=2)
    return rows + cols


def class_probabilities(organ_prob: Tensor, tumor_prob: Tensor, classes: int) -> Tensor:
    """Probabilities of the classes from the two stages.

    Three classes are background, pancreas and tumor, (1 - T)(1 - P), (1 - T) P and T: what stage 2 finds goes before
    what stage 1 finds. Two classes are 1 - T and T, what the cascade finds in the end; they are for data in which both
    stages look for the pancreas, and stage 1 is reached through the saliency.

    Args:
        organ_prob: P, `[batch, 1, row, col]`, stage 1.
        tumor_prob: T, the same shape: stage 2, pasted into the frame, 0 outside its crops.
        classes: 2 or 3.

    Returns:
        `[batch, class, row, col]`, the sum over the classes is 1.
    """
    if classes == 2:
        return torch.cat([1 - tumor_prob, tumor_prob], dim=1)
    rest = 1 - tumor_prob
    return torch.cat([rest * (1 - organ_prob), rest * organ_prob, tumor_prob], dim=1)


def class_maps(index: Tensor, classes: int) -> Tensor:
    """One map of 0 and 1 for each class: class indices `[batch, row, col]` to `[batch, class, row, col]`, float32."""
    return F.one_hot(index.long(), classes).movedim(-1, 1).float()


def predicted_matrix(prob: Tensor, mode: BoundaryMode, *, count_frame: bool = True) -> Tensor:
    """The matrix of a prediction (Eq. 15), as `boundary_matrix` returns it.

    Args:
        prob: Probabilities of the classes, `[batch, class, row, col]`.
        mode: `soft` is the matrix of the probabilities. The others are that of the argmax: `hard` without gradient,
            `ste` with that of its edges, each pixel standing for its probability (y = argmax + p - p, the last p held
            fixed), `ste_matrix` with that of the soft matrix.
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
    """Mean squared difference of the matrices of prediction and label, over all their entries (Eq. 16).

    Args:
        prob: `[batch, class, row, col]`, see `class_probabilities`.
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
    """Sum over the pixels of first_i second_j: twice `[batch, class, row, col]` to `[batch, class, class]`."""
    return (first.unsqueeze(2) * second.unsqueeze(1)).sum(dim=(3, 4))
