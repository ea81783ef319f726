"""The total is Eq. 17 without its boundary term."""

import torch

from cascade_rt.config import TrainConfig
from cascade_rt.losses.segmentation import dice_loss, tumor_loss
from cascade_rt.losses.total import total_loss


def parts() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(2, 1, 32, 32, generator=generator) > 0.5).float()
    outputs = [torch.randn(2, 1, 32, 32, generator=generator) for _ in range(5)]
    return torch.randn(2, 1, 32, 32, generator=generator), target, outputs, target


def test_stage_2_counts_nine_tenths() -> None:
    organ_logits, organ_target, outputs, tumor_target = parts()
    losses = total_loss(organ_logits, organ_target, outputs, tumor_target, TrainConfig())
    expected = dice_loss(organ_logits, organ_target) + 0.9 * tumor_loss(outputs, tumor_target, (0.5, 1, 2, 4))
    torch.testing.assert_close(losses.total, expected)


def test_without_crops_only_stage_1_counts() -> None:
    organ_logits, organ_target, _, _ = parts()
    losses = total_loss(organ_logits, organ_target, [], torch.zeros(()), TrainConfig())
    torch.testing.assert_close(losses.total, losses.organ)
    assert losses.tumor.item() == 0


def test_cross_entropy_joins_stage_1_where_asked_for() -> None:
    organ_logits, organ_target, outputs, tumor_target = parts()
    plain = total_loss(organ_logits, organ_target, outputs, tumor_target, TrainConfig())
    joined = total_loss(organ_logits, organ_target, outputs, tumor_target, TrainConfig(organ_loss="dice_bce"))
    extra = torch.nn.functional.binary_cross_entropy_with_logits(organ_logits, organ_target)
    torch.testing.assert_close(joined.organ - plain.organ, extra)


def test_on_a_slice_without_organ_cross_entropy_has_a_gradient_and_dice_has_none() -> None:
    target = torch.zeros(1, 1, 32, 32)
    gradients = {}
    for kind in ("dice", "dice_bce"):
        logits = torch.zeros(1, 1, 32, 32, requires_grad=True)
        total_loss(logits, target, [], target, TrainConfig(organ_loss=kind)).total.backward()  # type: ignore[arg-type]
        gradients[kind] = float(logits.grad.abs().max())  # type: ignore[union-attr]
    assert gradients["dice"] < 1e-9
    assert gradients["dice_bce"] > 1e-5
