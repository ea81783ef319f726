"""The two networks have the shapes and sizes of the paper."""

import pytest
import torch

from cascade_rt.config import CascadeConfig
from cascade_rt.models.cascade_model import CascadeModel, Stage1Graph, Stage2Graph
from cascade_rt.models.hu_window import apply_window
from cascade_rt.models.multiscale_unet import MultiscaleEncoder


def make_model(**changes: object) -> CascadeModel:
    torch.manual_seed(0)
    return CascadeModel(CascadeConfig(**({"base_width": 8} | changes))).eval()  # type: ignore[arg-type]


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("rows", "cols"), [(512, 512), (128, 96)])
def test_encoder_halves_each_block_and_widens_it(rows: int, cols: int) -> None:
    encoder = MultiscaleEncoder(8, "batch", "paper").eval()
    with torch.inference_mode():
        features = encoder(torch.zeros(1, 1, rows, cols))
    assert [block.branch1.shape for block in features.blocks] == [
        (1, 8 * 2**i, rows // 2**i, cols // 2**i) for i in range(4)
    ]
    assert [block.branch2.shape for block in features.blocks] == [
        (1, 16 * 2**i, rows // 2**i, cols // 2**i) for i in range(4)
    ]
    assert features.bottleneck.shape == (1, 192, rows // 16, cols // 16)


@pytest.mark.parametrize(("rows", "cols"), [(512, 512), (128, 96)])
def test_stage1_graph_returns_a_map_its_maxima_and_the_salient_image(rows: int, cols: int) -> None:
    graph = Stage1Graph(make_model()).eval()
    with torch.inference_mode():
        prob, row_max, col_max, salient = graph(torch.randn(2, 1, rows, cols) * 300)
    assert (prob.shape, salient.shape) == ((2, 1, rows, cols), (2, 1, rows, cols))
    torch.testing.assert_close(row_max, prob[:, 0].amax(dim=2))
    torch.testing.assert_close(col_max, prob[:, 0].amax(dim=1))


@pytest.mark.parametrize("features", ["encoder", "decoder"])
def test_stage2_has_five_outputs_from_a_sixteenth_to_full_size(features: str) -> None:
    model = make_model(stage2_features=features)
    with torch.inference_mode():
        outputs = model.stage2(torch.rand(2, 1, 128, 96))
    assert [output.shape for output in outputs] == [
        (2, 1, 8, 6),
        (2, 1, 16, 12),
        (2, 1, 32, 24),
        (2, 1, 64, 48),
        (2, 1, 128, 96),
    ]


def test_stage2_graph_is_the_probability_of_the_finest_output() -> None:
    model = make_model()
    crop = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(Stage2Graph(model).eval()(crop), torch.sigmoid(model.stage2(crop)[-1]))


def test_parameter_counts_at_the_paper_width() -> None:
    model = CascadeModel(CascadeConfig(base_width=64))
    assert parameters(model.stage1.encoder) == 45_080_000
    assert parameters(model.stage1.decoder) == 19_505_856
    assert parameters(model.stage2.reductions) == 11_780_032
    assert parameters(model.stage2.focusing) == 13_003_052
    assert parameters(model.stage2) == 70_216_495


def test_parameter_counts_at_base_width_8() -> None:
    model = make_model()
    assert (parameters(model.stage1), parameters(model.stage2)) == (1_011_865, 1_106_083)


def test_focusing_levels_are_widened_to_the_minimum_channels() -> None:
    usual, widened = make_model().stage2, make_model(min_focusing_channels=16).stage2
    assert [module.map.in_channels for module in usual.focusing] == [32, 16, 8, 4]
    assert [module.map.in_channels for module in widened.focusing] == [32, 16, 16, 16]


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("stage2", ["focusing", "dense_unet"])
def test_stage2_norm_epsilon_applies_to_stage_2_only(norm: str, stage2: str) -> None:
    model = make_model(norm=norm, stage2=stage2, stage2_norm_epsilon=0.01)

    def epsilons(network: torch.nn.Module) -> set[float]:
        return {module.eps for module in network.modules() if hasattr(module, "eps")}

    assert (epsilons(model.stage1), epsilons(model.stage2)) == ({1e-5}, {0.01})


def test_stan_bottleneck_reads_branch_2_in_the_small_path() -> None:
    paper, stan = MultiscaleEncoder(8, "batch", "paper"), MultiscaleEncoder(8, "batch", "stan")
    assert paper.neck_small[0][0].in_channels == 64
    assert stan.neck_small[0][0].in_channels == 128
    assert stan(torch.zeros(2, 1, 64, 64)).bottleneck.shape == (2, 192, 4, 4)


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_each_norm_runs_forward_and_backward(norm: str) -> None:
    model = make_model(norm=norm).train()
    organ = model.find_organ(torch.randn(2, 1, 64, 64))
    (organ.logits.sum() + model.stage2(organ.image)[-1].sum()).backward()
    assert all(parameter.grad is not None for parameter in model.stage1.parameters())


def test_group_norm_takes_any_base_width() -> None:
    model = make_model(norm="group", base_width=24)
    assert model.stage2(torch.rand(1, 1, 64, 64))[-1].shape == (1, 1, 64, 64)


def test_context_kernel_1_has_fewer_parameters() -> None:
    assert parameters(make_model(context_kernel=1).stage2) < parameters(make_model(context_kernel=3).stage2)


def test_window_maps_its_ends_to_0_and_1_and_clamps() -> None:
    hu = torch.tensor([-1000.0, -100.0, 70.0, 240.0, 3000.0])
    torch.testing.assert_close(apply_window(hu, (-100.0, 240.0)), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
