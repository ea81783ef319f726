"""The losses are Eq. 10 to 13."""

import pytest
import torch
from torch.nn import functional as F

from cascade_rt.config import OverlapOver
from cascade_rt.training.losses.segmentation import (
    dice_loss,
    focusing_loss,
    localization_loss,
    pixel_weight,
    tumor_loss,
)


def square_target(side: int = 64) -> torch.Tensor:
    target = torch.zeros(1, 1, side, side)
    target[..., 20:40, 16:48] = 1
    return target


def confident(target: torch.Tensor) -> torch.Tensor:
    """Logits that say exactly the target."""
    return (2 * target - 1) * 40


def test_dice_is_the_formula_by_hand() -> None:
    logits = torch.logit(torch.tensor([0.8, 0.4, 0.2, 0.6])).reshape(1, 1, 2, 2)
    target = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(dice_loss(logits, target), torch.tensor(1 - 2 * 1.2 / 4.0), atol=1e-5, rtol=0)


def test_dice_averages_over_the_samples_of_a_batch() -> None:
    target = torch.cat([square_target(), square_target()])
    logits = torch.cat([confident(square_target()), -confident(square_target())])
    torch.testing.assert_close(dice_loss(logits, target), torch.tensor(0.5), atol=1e-4, rtol=0)


def test_localization_is_cross_entropy_plus_iou_by_hand() -> None:
    prob = torch.tensor([0.8, 0.4, 0.2, 0.6])
    target = torch.tensor([1.0, 1.0, 0.0, 0.0])
    cross_entropy = -(torch.log(torch.tensor([0.8, 0.4, 0.8, 0.4]))).mean()
    iou = (1.2 + 1) / (2.0 + 2.0 - 1.2 + 1)
    found = localization_loss(torch.logit(prob).reshape(1, 1, 2, 2), target.reshape(1, 1, 2, 2))
    torch.testing.assert_close(found, cross_entropy + 1 - iou, atol=1e-5, rtol=0)


def test_pixel_weight_is_the_31_by_31_mean_of_the_paper() -> None:
    target = square_target()
    expected = 1 + 5 * (F.avg_pool2d(target, 31, stride=1, padding=15) - target).abs()
    torch.testing.assert_close(pixel_weight(target), expected)


def test_pixel_weight_is_1_far_from_any_boundary() -> None:
    assert pixel_weight(torch.zeros(1, 1, 64, 64)).unique().tolist() == [1.0]


def test_focusing_cross_entropy_is_weighted_pixel_by_pixel() -> None:
    target, weight = square_target(), pixel_weight(square_target())
    near, far = torch.zeros_like(target), torch.zeros_like(target)
    near[..., 20, 16], far[..., 0, 0] = -4.0, 4.0
    base = confident(target)
    wrong_near = torch.where(near != 0, near, base)
    wrong_far = torch.where(far != 0, far, base)
    assert weight[..., 20, 16] > 2 * weight[..., 0, 0]
    assert focusing_loss(wrong_near, target, weight) > focusing_loss(wrong_far, target, weight)


def test_focusing_with_equal_weights_is_the_localization_loss() -> None:
    target, logits = square_target(), torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(
        focusing_loss(logits, target, torch.ones_like(target)), localization_loss(logits, target)
    )


def test_legacy_bce_is_unweighted_and_the_iou_stays_weighted() -> None:
    target, logits = square_target(), torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    weight = pixel_weight(target)
    pixelwise = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weighted = (weight * pixelwise).sum() / weight.sum()
    found = focusing_loss(logits, target, weight, legacy_unweighted_bce=True)
    torch.testing.assert_close(found - pixelwise.mean(), focusing_loss(logits, target, weight) - weighted)
    assert abs(weighted - pixelwise.mean()) > 1e-4


@pytest.mark.parametrize("empty", [True, False])
def test_a_perfect_prediction_costs_nothing(empty: bool) -> None:
    target = torch.zeros(1, 1, 64, 64) if empty else square_target()
    logits = confident(target)
    for loss in (
        dice_loss(logits, target),
        localization_loss(logits, target),
        focusing_loss(logits, target, pixel_weight(target)),
    ):
        torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("logit", [-20.0, -12.0, -6.0, 0.0, 6.0])
def test_crops_without_target_have_a_gradient_bounded_by_false_alarms(logit: float) -> None:
    target = torch.zeros(1, 1, 32, 32)
    logits = torch.full_like(target, logit, requires_grad=True)
    localization_loss(logits, target).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    cross_entropy_pull = float(torch.sigmoid(logits.detach()).mean())
    overlap_pull = float(logits.grad.sum()) - cross_entropy_pull
    assert overlap_pull <= float(torch.sigmoid(logits.detach()).sum())


def test_tumor_loss_is_the_weighted_sum_of_its_outputs() -> None:
    target, weights = square_target(), (0.5, 1.0, 2.0, 4.0)
    outputs = [torch.randn(1, 1, 64, 64) for _ in range(5)]
    expected = localization_loss(outputs[0], target) + sum(
        weight * focusing_loss(logits, target, pixel_weight(target))
        for weight, logits in zip(weights, outputs[1:], strict=True)
    )
    torch.testing.assert_close(tumor_loss(outputs, target, weights), expected)


def test_coarse_outputs_are_brought_to_the_size_of_the_target() -> None:
    target = square_target()
    coarse = torch.randn(1, 1, 4, 4)
    fine = F.interpolate(coarse, size=(64, 64), mode="bilinear", align_corners=True)
    outputs = [torch.randn(1, 1, 64, 64) for _ in range(4)]
    torch.testing.assert_close(
        tumor_loss([coarse, *outputs], target, (1, 1, 1, 1)), tumor_loss([fine, *outputs], target, (1, 1, 1, 1))
    )


def test_a_single_map_is_a_focusing_map_of_weight_1() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 1, 32, 32, generator=generator), torch.zeros(2, 1, 32, 32)
    target[:, :, 8:20, 4:30] = 1
    expected = focusing_loss(logits, target, pixel_weight(target))
    torch.testing.assert_close(tumor_loss([logits], target, (0.5, 1, 2, 4)), expected)


def test_a_map_before_a_single_one_is_a_localisation_map() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse, fine = torch.randn(1, 1, 32, 32, generator=generator), torch.randn(1, 1, 32, 32, generator=generator)
    target = torch.zeros(1, 1, 32, 32)
    target[:, :, 8:20, 4:30] = 1
    expected = localization_loss(coarse, target) + focusing_loss(fine, target, pixel_weight(target))
    torch.testing.assert_close(tumor_loss([coarse, fine], target, (0.5, 1, 2, 4)), expected)


def test_over_the_batch_overlaps_are_those_of_one_large_image() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 1, 32, 48, generator=generator), torch.zeros(2, 1, 32, 48)
    target[0, :, 4:20, 8:30] = 1
    joined = [torch.cat([part[0:1], part[1:2]], dim=2) for part in (logits, target)]
    weight = [1 + 5 * torch.rand(2, 1, 32, 48, generator=generator)]
    weight.append(torch.cat([weight[0][0:1], weight[0][1:2]], dim=2))
    torch.testing.assert_close(dice_loss(logits, target, "batch"), dice_loss(*joined))
    torch.testing.assert_close(localization_loss(logits, target, "batch"), localization_loss(*joined))
    over_batch = focusing_loss(logits, target, weight[0], legacy_unweighted_bce=True, over="batch")
    torch.testing.assert_close(over_batch, focusing_loss(*joined, weight[1], legacy_unweighted_bce=True))


@pytest.mark.parametrize(("over", "has_gradient"), [("slice", False), ("batch", True)])
def test_false_alarms_on_empty_slices_cost_overlap_only_over_the_batch(over: OverlapOver, has_gradient: bool) -> None:
    target = torch.zeros(2, 1, 32, 32)
    target[0, :, 8:24, 8:24] = 1
    logits = torch.zeros(2, 1, 32, 32, requires_grad=True)
    dice_loss(logits, target, over).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (float(logits.grad[1].abs().max()) > 1e-6) == has_gradient
