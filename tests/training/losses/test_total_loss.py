"""The total is Eq. 17."""

import torch

from cascade_rt.config import TrainConfig
from cascade_rt.training.losses.segmentation import dice_loss
from cascade_rt.training.losses.shared_boundary import class_probabilities, shared_boundary_loss
from cascade_rt.training.losses.total import boundary_loss, organ_loss, total_loss

ORGAN, TUMOR, BOUNDARY = torch.tensor(0.5), torch.tensor(2.0), torch.tensor(0.25)


def logits_and_target() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(2, 1, 32, 32, generator=generator) > 0.5).float()
    return torch.randn(2, 1, 32, 32, generator=generator), target


def test_stage_2_counts_nine_tenths() -> None:
    losses = total_loss(ORGAN, TUMOR, TrainConfig())
    torch.testing.assert_close(losses.total, torch.tensor(0.5 + 0.9 * 2.0))
    assert (losses.organ, losses.tumor, losses.boundary) == (0.5, 2.0, 0.0)


def test_the_shared_boundary_counts_four_tenths() -> None:
    losses = total_loss(ORGAN, TUMOR, TrainConfig(), boundary=BOUNDARY)
    torch.testing.assert_close(losses.total, torch.tensor(0.5 + 0.9 * 2.0 + 0.4 * 0.25))
    assert losses.boundary == 0.25


def test_the_shared_boundary_is_computed_as_the_config_says() -> None:
    organ_logits, organ_target = logits_and_target()
    tumor_prob, label = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)), organ_target[:, 0]
    config = TrainConfig(boundary_mode="soft", boundary_frame=False)
    prob = class_probabilities(torch.sigmoid(organ_logits), tumor_prob, 3)
    expected = shared_boundary_loss(prob, label, mode="soft", count_frame=False)
    torch.testing.assert_close(boundary_loss(organ_logits, tumor_prob, label, config), expected)


def test_stage_1_has_the_dice_loss_of_the_paper() -> None:
    torch.testing.assert_close(organ_loss(*logits_and_target(), TrainConfig()), dice_loss(*logits_and_target()))


def test_cross_entropy_joins_the_loss_of_stage_1_if_requested() -> None:
    parts = logits_and_target()
    extra = organ_loss(*parts, TrainConfig(organ_loss="dice_bce")) - organ_loss(*parts, TrainConfig())
    torch.testing.assert_close(extra, torch.nn.functional.binary_cross_entropy_with_logits(*parts))


def test_on_slices_without_organ_only_cross_entropy_has_a_gradient() -> None:
    target = torch.zeros(1, 1, 32, 32)
    gradients = {}
    for kind in ("dice", "dice_bce"):
        logits = torch.zeros(1, 1, 32, 32, requires_grad=True)
        organ_loss(logits, target, TrainConfig(organ_loss=kind)).backward()  # type: ignore[arg-type, no-untyped-call]
        gradients[kind] = float(logits.grad.abs().max())  # type: ignore[union-attr]
    assert gradients["dice"] < 1e-9
    assert gradients["dice_bce"] > 1e-5
