"""The focusing module refines a coarse map as Eq. 9 says."""

import pytest
import torch
from torch.nn import functional as F

from cascade_rt.config import Interference
from cascade_rt.models.focusing import ContextExploration, FocusingModule, split, upsample
from cascade_rt.models.localization import Located


@pytest.mark.parametrize("shape", [(2, 3, 4, 7), (1, 2, 64, 16), (1, 1, 1, 5)])
def test_upsampling_is_bilinear_with_aligned_corners(shape: tuple[int, ...]) -> None:
    image = torch.randn(shape, dtype=torch.float64)
    expected = F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=True)
    torch.testing.assert_close(upsample(image), expected)


def test_foreground_and_background_are_the_sigmoid_and_what_is_left() -> None:
    logits = torch.linspace(-60, 60, 49, dtype=torch.float64).reshape(1, 1, 7, 7)
    foreground, background = split(logits)
    torch.testing.assert_close(foreground, torch.sigmoid(logits))
    torch.testing.assert_close(background, torch.sigmoid(-logits))


def test_a_very_small_foreground_is_exact_to_the_last_digits() -> None:
    logits = torch.full((1, 1, 2, 2), -20.0)
    torch.testing.assert_close(split(logits)[0], torch.sigmoid(logits.double()).float(), rtol=1e-6, atol=0)


def test_context_exploration_keeps_channels_and_size() -> None:
    exploration = ContextExploration(16, "batch", 3).eval()
    assert exploration(torch.rand(1, 16, 24, 32)).shape == (1, 16, 24, 32)


def test_context_branches_use_the_kernels_and_dilations_of_the_paper() -> None:
    exploration = ContextExploration(16, "batch", 3)
    assert [branch[0].kernel_size[0] for branch in exploration.local] == [1, 3, 5, 7]
    assert [branch[0].dilation[0] for branch in exploration.dilated] == [1, 2, 4, 8]


def test_each_context_branch_feeds_the_next() -> None:
    exploration = ContextExploration(16, "batch", 3).eval()
    features = torch.rand(1, 16, 16, 16)
    with torch.inference_mode():
        before = exploration(features)
        for parameter in exploration.dilated[0].parameters():
            parameter.mul_(0.0)
        exploration.fuse[0].weight[:, :4] = 0
        torch.nn.init.zeros_(exploration.fuse[0].weight[:, :4])
        after = exploration(features)
    assert not torch.allclose(before, after)


def test_focusing_doubles_the_resolution_of_the_coarse_map() -> None:
    module = FocusingModule(16, 32, "batch", 3).eval()
    coarse = Located(torch.rand(1, 32, 8, 6), torch.rand(1, 1, 8, 6))
    refined = module(torch.rand(1, 16, 16, 12), coarse)
    assert (refined.features.shape, refined.logits.shape) == ((1, 16, 16, 12), (1, 1, 16, 12))


def test_background_branch_sees_nothing_if_the_coarse_map_is_sure_of_tumor() -> None:
    module = FocusingModule(8, 16, "batch", 3).eval()
    seen: list[torch.Tensor] = []
    assert module.false_negatives is not None
    module.false_negatives.explore.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    sure = torch.full((1, 1, 8, 8), 100.0)
    module(torch.rand(1, 8, 16, 16), Located(torch.rand(1, 16, 8, 8), sure))
    assert seen[0].abs().max() < 1e-40


def inputs() -> tuple[torch.Tensor, Located]:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2, 8, 16, 16, generator=generator)
    return features, Located(torch.rand(2, 16, 8, 8, generator=generator), torch.zeros(2, 1, 8, 8))


def test_false_positives_are_subtracted_and_false_negatives_added() -> None:
    module = FocusingModule(8, 16, "batch", 3)
    distraction, missed = module.false_positives, module.false_negatives
    assert distraction is not None
    assert missed is not None
    assert (distraction.weight.item(), missed.weight.item()) == (1.0, 1.0)
    features, coarse = inputs()
    refined = distraction.after(upsample(module.coarse(coarse.features)) - distraction.explore(0.5 * features))
    expected = module.map(missed.after(refined + missed.explore(0.5 * features)))
    torch.testing.assert_close(module(features, coarse).logits, expected)


def test_with_one_kind_of_interference_the_other_is_left_out() -> None:
    features, coarse = inputs()
    fpd, fnd = FocusingModule(8, 16, "batch", 3, "fpd"), FocusingModule(8, 16, "batch", 3, "fnd")
    assert fpd.false_positives is not None
    assert fnd.false_negatives is not None
    subtracted = upsample(fpd.coarse(coarse.features)) - fpd.false_positives.explore(0.5 * features)
    added = upsample(fnd.coarse(coarse.features)) + fnd.false_negatives.explore(0.5 * features)
    torch.testing.assert_close(fpd(features, coarse).features, fpd.false_positives.after(subtracted))
    torch.testing.assert_close(fnd(features, coarse).features, fnd.false_negatives.after(added))


def test_without_interference_no_features_of_the_level_are_needed() -> None:
    module, (_, coarse) = FocusingModule(8, 16, "batch", 3, "none"), inputs()
    torch.testing.assert_close(module(None, coarse).features, module.after(upsample(module.coarse(coarse.features))))


@pytest.mark.parametrize(("interference", "explorations"), [("both", 2), ("fpd", 1), ("fnd", 1), ("none", 0)])
def test_what_is_not_used_is_not_created(interference: Interference, explorations: int) -> None:
    module = FocusingModule(8, 16, "batch", 3, interference)
    assert sum(isinstance(part, ContextExploration) for part in module.modules()) == explorations
    features, coarse = inputs()
    module(features, coarse).logits.sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in module.parameters())
