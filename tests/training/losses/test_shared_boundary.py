"""The shared-boundary metric and loss are Eq. 14 to 16."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils._python_dispatch import TorchDispatchMode

from cascade_rt.config import BoundaryMode
from cascade_rt.training.losses.shared_boundary import (
    boundary_matrix,
    class_maps,
    class_probabilities,
    frame_edges,
    predicted_matrix,
    shared_boundary_loss,
    shared_edges,
)

FOURTH, THIRD, HALF = 1 / 4, 1 / 3, 1 / 2

label_maps = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    elements=st.integers(0, 2),
)


def maps_of(rows: list[str], classes: int = 3) -> torch.Tensor:
    """One-hot maps of a picture whose characters are class numbers."""
    return class_maps(torch.tensor([[int(pixel) for pixel in row] for row in rows]).unsqueeze(0), classes)


def matrix_of(rows: list[str], classes: int = 3, *, count_frame: bool = True) -> torch.Tensor:
    return boundary_matrix(maps_of(rows, classes), count_frame=count_frame)[0]


def matrix_by_walking_around_each_pixel(label: np.ndarray, classes: int, count_frame: bool) -> np.ndarray:
    """The definition, pixel by pixel: look at the four neighbours of each."""
    shared, perimeter = np.zeros((classes, classes)), np.zeros(classes)
    for row in range(label.shape[0]):
        for col in range(label.shape[1]):
            own = label[row, col]
            for step_row, step_col in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                other_row, other_col = row + step_row, col + step_col
                inside = 0 <= other_row < label.shape[0] and 0 <= other_col < label.shape[1]
                if not inside:
                    perimeter[own] += count_frame
                elif label[other_row, other_col] != own:
                    shared[own, label[other_row, other_col]] += 1
                    perimeter[own] += 1
    return np.divide(shared, perimeter[:, None], out=np.zeros_like(shared), where=perimeter[:, None] > 0)


def random_prob(*shape: int, seed: int = 0) -> torch.Tensor:
    """Probabilities over the classes, `[batch, class, row, col]`."""
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(dim=1).requires_grad_()


# The metric, by hand


def test_two_halves_of_a_square_share_a_third_of_their_perimeter() -> None:
    maps = maps_of(["0011"] * 4, classes=2)
    assert shared_edges(maps).tolist() == [[[0, 4], [4, 0]]]
    assert frame_edges(maps).tolist() == [[8, 8]]
    torch.testing.assert_close(boundary_matrix(maps)[0], torch.tensor([[0, THIRD], [THIRD, 0]]))


PICTURES = {
    # Class 0: 16 edges on the frame and 4 around the hole; class 1 has those 4 alone.
    "a hole": (["0000", "0100", "0000", "0000"], [[0, 4 / 20, 0], [1, 0, 0], [0, 0, 0]]),
    # The corner pixel has 2 edges on the frame, and 2 that it shares.
    "a region in the corner": (["100", "000", "000"], [[0, 2 / 12, 0], [HALF, 0, 0], [0, 0, 0]]),
    # A tumor inside the organ, which lies inside the background: 0 has 20 + 12 edges, 1 has 12 + 4.
    "a tumor inside the organ": (
        ["00000", "01110", "01210", "01110", "00000"],
        [[0, 12 / 32, 0], [12 / 16, 0, 4 / 16], [0, 1, 0]],
    ),
    # 1 and 2 meet at a corner only: both share all their edges with 0, and none with each other.
    "diagonal contact": (
        ["0000", "0100", "0020", "0000"],
        [[0, 4 / 24, 4 / 24], [1, 0, 0], [1, 0, 0]],
    ),
    # 0 and 2 have 5 edges on the frame, 1 has 2; 0 and 1 share 3, and so do 1 and 2.
    "three stripes": (
        ["012", "012", "012"],
        [[0, 3 / 8, 0], [3 / 8, 0, 3 / 8], [0, 3 / 8, 0]],
    ),
    # One T-shaped meeting point: 0 above, 1 and 2 below it.
    "three classes meeting": (
        ["0000", "0000", "1122", "1122"],
        [[0, 2 / 12, 2 / 12], [FOURTH, 0, FOURTH], [FOURTH, FOURTH, 0]],
    ),
    "an absent class between two present ones": (["02", "02"], [[0, 0, THIRD], [0, 0, 0], [THIRD, 0, 0]]),
    "one class everywhere": (["111", "111"], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
    "one row": (["0112"], [[0, FOURTH, 0], [1 / 6, 0, 1 / 6], [0, FOURTH, 0]]),
}


@pytest.mark.parametrize(("rows", "expected"), PICTURES.values(), ids=PICTURES.keys())
def test_the_matrix_is_the_one_counted_by_hand(rows: list[str], expected: list[list[float]]) -> None:
    torch.testing.assert_close(matrix_of(rows), torch.tensor(expected, dtype=torch.float32))


def test_without_the_frame_only_inner_edges_make_a_perimeter() -> None:
    found = matrix_of(["0000", "0000", "1122", "1122"], count_frame=False)
    torch.testing.assert_close(found, torch.tensor([[0, HALF, HALF], [HALF, 0, HALF], [HALF, HALF, 0]]))


def test_one_class_everywhere_has_no_perimeter_without_the_frame() -> None:
    assert not matrix_of(["11", "11"], count_frame=False).any()


@given(label_maps.filter(lambda label: len(np.unique(label > 0)) == 2))
def test_without_the_frame_the_matrix_of_two_classes_ignores_their_shape(label: np.ndarray) -> None:
    maps = class_maps(torch.from_numpy(label > 0).unsqueeze(0), 2)
    assert boundary_matrix(maps, count_frame=False)[0].tolist() == [[0, 1], [1, 0]]


# The metric, as properties


@given(label_maps, st.booleans())
def test_soft_edges_of_class_maps_are_the_exact_count(label: np.ndarray, count_frame: bool) -> None:
    maps = class_maps(torch.from_numpy(label).unsqueeze(0), 3)
    expected = torch.from_numpy(matrix_by_walking_around_each_pixel(label, 3, count_frame)).float()
    found = predicted_matrix(maps, "soft", count_frame=count_frame)[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@given(label_maps)
def test_matrix_rows_sum_to_the_perimeter_share_off_the_frame(label: np.ndarray) -> None:
    maps = class_maps(torch.from_numpy(label).unsqueeze(0), 3)
    inner, frame = shared_edges(maps).sum(dim=2), frame_edges(maps)
    expected = inner / (inner + frame).clamp(min=1)
    torch.testing.assert_close(boundary_matrix(maps).sum(dim=2), expected)


def test_slices_of_a_batch_do_not_mix() -> None:
    first, second = maps_of(["0011"] * 4), maps_of(["0000", "0120", "0120", "0000"])
    both = boundary_matrix(torch.cat([first, second]))
    torch.testing.assert_close(both, torch.cat([boundary_matrix(first), boundary_matrix(second)]))


def test_edges_of_a_whole_slice_are_counted_exactly_in_float32() -> None:
    board = (torch.arange(512).unsqueeze(0) + torch.arange(512).unsqueeze(1)) % 2
    maps = class_maps(board.unsqueeze(0), 2)
    assert shared_edges(maps)[0, 0, 1].item() == 2 * 512 * 511


# Probabilities and what stands in for the argmax


def test_classes_are_ordered_background_pancreas_tumor() -> None:
    organ, tumor = torch.full((1, 1, 1, 1), 0.8), torch.full((1, 1, 1, 1), 0.25)
    expected = torch.tensor([0.75 * 0.2, 0.75 * 0.8, 0.25])
    torch.testing.assert_close(class_probabilities(organ, tumor, 3).flatten(), expected)


def test_two_classes_are_what_stage_2_finds_and_the_rest() -> None:
    organ, tumor = torch.full((1, 1, 1, 1), 0.8), torch.full((1, 1, 1, 1), 0.25)
    torch.testing.assert_close(class_probabilities(organ, tumor, 2).flatten(), torch.tensor([0.75, 0.25]))


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_sum_to_1(classes: int) -> None:
    organ, tumor = torch.rand(2, 2, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    total = class_probabilities(organ, tumor, classes).sum(dim=1)
    torch.testing.assert_close(total, torch.ones(2, 5, 6))


@pytest.mark.parametrize("count_frame", [True, False])
@pytest.mark.parametrize("mode", ["ste", "ste_matrix", "hard"])
def test_the_matrix_is_that_of_the_argmax(mode: BoundaryMode, count_frame: bool) -> None:
    prob = random_prob(2, 3, 16, 16)
    expected = boundary_matrix(class_maps(prob.argmax(dim=1), 3), count_frame=count_frame)
    assert torch.equal(predicted_matrix(prob, mode, count_frame=count_frame), expected)


def test_ste_matrix_has_the_gradient_of_the_soft_matrix() -> None:
    prob, weight = random_prob(2, 3, 16, 16), torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1))
    gradients = [
        torch.autograd.grad((weight * predicted_matrix(prob, mode)).sum(), prob)[0] for mode in ("ste_matrix", "soft")
    ]
    torch.testing.assert_close(*gradients)


def test_ste_has_the_gradient_of_the_edges_of_the_argmax() -> None:
    prob, weight = random_prob(2, 3, 16, 16), torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1))
    maps = class_maps(prob.argmax(dim=1), 3).requires_grad_()
    (expected,) = torch.autograd.grad((weight * boundary_matrix(maps)).sum(), maps)
    (found,) = torch.autograd.grad((weight * predicted_matrix(prob, "ste")).sum(), prob)
    torch.testing.assert_close(found, expected)


# The loss


@given(label_maps, st.sampled_from(("ste", "ste_matrix", "soft", "hard")), st.booleans())
def test_a_perfect_prediction_costs_nothing(label: np.ndarray, mode: BoundaryMode, count_frame: bool) -> None:
    target = torch.from_numpy(label).unsqueeze(0)
    assert shared_boundary_loss(class_maps(target, 3), target, mode=mode, count_frame=count_frame).item() == 0


@pytest.mark.parametrize("mode", ["ste", "ste_matrix", "soft", "hard"])
def test_the_loss_is_the_mean_over_all_entries_diagonal_included(mode: BoundaryMode) -> None:
    target = torch.tensor([[0, 0, 1, 1]] * 4).unsqueeze(0)
    nothing = class_maps(torch.zeros_like(target), 2)
    expected = (THIRD**2 + THIRD**2) / 4
    assert shared_boundary_loss(nothing, target, mode=mode).item() == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["ste", "ste_matrix", "soft"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_gradient_is_finite_and_not_zero(mode: BoundaryMode, classes: int) -> None:
    prob = random_prob(2, classes, 24, 24)
    target = torch.zeros(2, 24, 24, dtype=torch.uint8)
    target[:, 8:16, 8:16] = 1
    shared_boundary_loss(prob, target, mode=mode).backward()
    assert prob.grad is not None
    assert torch.isfinite(prob.grad).all()
    assert prob.grad.any()


def test_hard_mode_has_no_gradient() -> None:
    prob = random_prob(2, 3, 24, 24)
    loss = shared_boundary_loss(prob, torch.zeros(2, 24, 24, dtype=torch.uint8), mode="hard")
    assert loss.item() > 0
    assert not loss.requires_grad


@pytest.mark.parametrize("mode", ["ste", "ste_matrix", "soft"])
def test_the_gradient_reaches_both_stages(mode: BoundaryMode) -> None:
    organ, tumor = (
        torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(seed)).requires_grad_() for seed in (0, 1)
    )
    target = torch.zeros(1, 24, 24, dtype=torch.uint8)
    target[:, 4:20, 4:20], target[:, 8:16, 8:16] = 1, 2
    shared_boundary_loss(class_probabilities(organ, tumor, 3), target, mode=mode).backward()
    assert all(prob.grad is not None and prob.grad.any() for prob in (organ, tumor))


@pytest.mark.parametrize("mode", ["ste", "ste_matrix"])
def test_a_class_that_the_argmax_misses_does_not_blow_up_the_gradient(mode: BoundaryMode) -> None:
    """Its row is 0 by definition. Seen as edges over a perimeter of nearly 0, it would outweigh every other loss."""
    target = torch.zeros(1, 64, 64, dtype=torch.uint8)
    target[:, 16:48, 16:48], target[:, 24:40, 24:40] = 1, 2
    tumor = torch.full((1, 1, 64, 64), 0.4).requires_grad_()
    organ = (target > 0).float().unsqueeze(1) * 0.98 + 0.01
    prob = class_probabilities(organ, tumor, 3)
    assert (prob.argmax(dim=1) != 2).all()
    shared_boundary_loss(prob, target, mode=mode).backward()
    assert tumor.grad is not None
    assert 0 < tumor.grad.abs().max() < 0.1


def test_a_step_along_the_gradient_lessens_the_soft_loss() -> None:
    logits = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)).requires_grad_()
    target = torch.zeros(1, 16, 16, dtype=torch.uint8)
    target[:, 4:12, 4:12] = 1
    loss = shared_boundary_loss(logits.softmax(dim=1), target, mode="soft")
    (gradient,) = torch.autograd.grad(loss, logits)
    moved = (logits - gradient / gradient.norm()).softmax(dim=1)
    assert shared_boundary_loss(moved, target, mode="soft") < loss


def test_half_precision_probabilities_are_counted_in_float32() -> None:
    target = torch.zeros(1, 64, 64, dtype=torch.uint8)
    target[:, 16:48, 16:48] = 1
    prob = class_maps(target, 3).to(torch.bfloat16)
    loss = shared_boundary_loss(prob, target)
    assert loss.dtype == torch.float32
    assert loss.item() == 0


class LargestTensor(TorchDispatchMode):
    """Notes the most elements that any operation, forward or backward, lays out in memory."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        tensors = out if isinstance(out, tuple | list) else [out]
        sizes = [
            tensor.untyped_storage().nbytes() // tensor.element_size()
            for tensor in tensors
            if isinstance(tensor, torch.Tensor)
        ]
        self.elements = max(self.elements, *sizes, 0)
        return out


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("mode", ["ste", "ste_matrix", "soft"])
def test_no_tensor_is_larger_than_classes_squared_times_the_slice(classes: int, side: int, mode: BoundaryMode) -> None:
    prob = random_prob(1, classes, side, side)
    with LargestTensor() as largest:
        shared_boundary_loss(prob, torch.zeros(1, side, side, dtype=torch.uint8), mode=mode).backward()
    assert 0 < largest.elements <= classes**2 * side**2
