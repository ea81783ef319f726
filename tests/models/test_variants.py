"""Each row of Table 3 and Figure 10 is a config, and has the blocks of its row and no others."""

from dataclasses import replace

import pytest
import torch

from cascade_rt.config import COMPARATORS, VARIANTS, Comparator, Variant, load_config
from cascade_rt.errors import UsageError
from cascade_rt.models.cascade_model import CascadeModel, Stage1Graph, Stage2Graph, tumor_maps
from cascade_rt.models.localization_net import LocalizationUNet
from cascade_rt.models.multiscale_unet import MultiscaleUNet, bottleneck_width
from cascade_rt.models.tumor_net import TumorNet
from cascade_rt.training.transfer import fitting_weights, transfer_stage1


def make_model(variant: Variant | None = None, network: Comparator | None = None) -> CascadeModel:
    cascade, _ = load_config(variant=variant, network=network)
    torch.manual_seed(0)
    return CascadeModel(replace(cascade, base_width=8)).eval()


BLOCKS: dict[Variant, tuple[type | None, bool, type | None]] = {
    "u": (None, False, None),
    "m": (None, False, MultiscaleUNet),
    "m-p": (MultiscaleUNet, False, MultiscaleUNet),
    "m-p-t": (MultiscaleUNet, True, MultiscaleUNet),
    "m-p-t-l": (MultiscaleUNet, True, LocalizationUNet),
    "m-p-t-l-f": (MultiscaleUNet, True, TumorNet),
}


@pytest.mark.parametrize("variant", BLOCKS)
def test_a_row_of_table_3_has_its_blocks_and_no_others(variant: Variant) -> None:
    model, (stage1, saliency, stage2) = make_model(variant), BLOCKS[variant]
    assert (None if model.stage1 is None else type(model.stage1)) is stage1
    assert (model.saliency is not None) == saliency
    assert stage2 is None or type(model.stage2) is stage2


def test_the_rows_grow_from_one_to_the_next() -> None:
    for smaller, larger in (("m", "m-p"), ("m-p", "m-p-t"), ("m-p-t", "m-p-t-l"), ("none", "fpd"), ("fpd", "both")):
        counts = [
            sum(p.numel() for p in make_model({"none": "no-interference", "both": None}.get(row, row)).parameters())  # type: ignore[arg-type, call-overload]
            for row in (smaller, larger)
        ]
        assert counts[0] < counts[1], (smaller, larger)


def test_the_last_row_of_table_3_is_the_default() -> None:
    assert load_config(variant="m-p-t-l-f") == load_config()


def test_the_whole_method_is_the_default_network() -> None:
    assert make_model("m-p-t-l-f").state_dict().keys() == make_model().state_dict().keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_of_a_variant_is_trained(variant: Variant) -> None:
    model = make_model(variant).train()
    organ = model.find_organ(torch.randn(2, 1, 64, 64) * 200)
    loss = sum(maps.float().mean() for maps in tumor_maps(model.stage2, model.salient(organ)))
    if organ.logits is not None:
        loss = loss + organ.logits.mean()
    loss.backward()  # type: ignore[union-attr]
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


@pytest.mark.parametrize("network", COMPARATORS)
def test_a_network_of_table_1_stands_alone(network: Comparator) -> None:
    model = make_model(network=network)
    assert (model.stage1, model.saliency) == (None, None)
    with torch.inference_mode():
        assert Stage2Graph(model)(torch.rand(1, 1, 64, 96)).shape == (1, 1, 64, 96)


def test_without_stage_1_the_region_is_the_whole_slice() -> None:
    model = make_model("m")
    prob, row_max, col_max, salient = Stage1Graph(model)(torch.full((1, 1, 64, 96), 70.0))
    assert (prob.min(), row_max.min(), col_max.min()) == (1, 1, 1)
    assert torch.equal(salient, torch.full((1, 1, 64, 96), 0.5))


def test_a_saliency_without_a_stage_1_is_refused() -> None:
    with pytest.raises(UsageError, match=r"saliency must be false when cascade\.stage1 is none"):
        replace(load_config()[0], stage1="none")


def test_a_variant_and_a_network_are_not_asked_for_together() -> None:
    with pytest.raises(UsageError, match="choose one of them"):
        load_config(variant="m", network="unet")


# Transfer


def test_the_same_network_takes_over_all_weights() -> None:
    model = make_model("m-p-t")
    transfer_stage1(model)
    assert model.stage1 is not None
    first, second = model.stage1.state_dict(), model.stage2.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_localization_reuses_all_weights_but_the_first_upsampling() -> None:
    model = make_model("m-p-t-l")
    assert model.stage1 is not None
    left = set(model.stage1.state_dict()) - set(fitting_weights(model))
    assert left == {"decoder.steps.0.up.weight"}
    assert bottleneck_width(8) != 8 * 8


def test_the_whole_method_takes_over_the_encoder() -> None:
    model = make_model()
    assert {name.partition(".")[0] for name in fitting_weights(model)} == {"encoder"}


def test_what_was_taken_over_is_a_copy() -> None:
    model = make_model("m-p-t")
    transfer_stage1(model)
    before = model.stage1.head.bias.clone()  # type: ignore[union-attr]
    with torch.no_grad():
        model.stage2.head.bias += 1
    assert torch.equal(model.stage1.head.bias, before)  # type: ignore[union-attr]


@pytest.mark.parametrize("variant", ["u", "m"])
def test_variants_without_fitting_weights_refuse_transfer(variant: Variant) -> None:
    with pytest.raises(UsageError, match=r"train\.transfer must be false"):
        fitting_weights(make_model(variant))
