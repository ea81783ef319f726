"""A wider network that computes the same."""

import pytest
import torch

from benchmarks.wide_bundle import make_wide_bundle, widen
from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.config import CascadeConfig
from cascade_rt.errors import UsageError
from cascade_rt.models.cascade_model import CascadeModel, Stage1Graph, Stage2Graph


def lively_model(**config: object) -> CascadeModel:
    """Random weights, and normalisations that have seen noise."""
    torch.manual_seed(0)
    model = CascadeModel(CascadeConfig(base_width=8, **config)).train()  # type: ignore[arg-type]
    torch.nn.init.normal_(model.saliency.conv5.weight, std=0.1)
    with torch.no_grad():
        model.stage2(model.find_organ(torch.randn(2, 1, 64, 64) * 200).image)
    return model.eval()


@pytest.mark.parametrize(
    ("config", "base_width"),
    [({}, 16), ({"min_focusing_channels": 16}, 16), ({"norm": "instance", "bottleneck": "stan"}, 24)],
)
def test_both_stages_compute_the_same(config: dict[str, object], base_width: int) -> None:
    model = lively_model(**config)
    wide = widen(model, base_width)
    hu = torch.randn(1, 1, 64, 64) * 200
    with torch.inference_mode():
        for narrow_output, wide_output in zip(Stage1Graph(model)(hu), Stage1Graph(wide)(hu), strict=True):
            torch.testing.assert_close(wide_output, narrow_output, atol=1e-4, rtol=0)
        salient = torch.rand(1, 1, 64, 96)
        torch.testing.assert_close(Stage2Graph(wide)(salient), Stage2Graph(model)(salient), atol=1e-4, rtol=0)


def test_the_wide_network_has_the_work_of_its_width() -> None:
    wide = widen(lively_model(), 16)
    assert wide.state_dict().keys() == CascadeModel(CascadeConfig(base_width=16)).state_dict().keys()
    assert wide.config.base_width == 16


def test_a_width_that_is_not_a_multiple_is_refused() -> None:
    with pytest.raises(UsageError, match="12 is not a multiple of 8"):
        widen(lively_model(), 12)


def test_groups_cannot_be_widened() -> None:
    with pytest.raises(UsageError, match="group normalization"):
        widen(CascadeModel(CascadeConfig(base_width=8, norm="group")), 16)


@pytest.mark.slow
def test_the_embedded_bundle_is_exported_wider(tmp_path) -> None:
    bundle = read_bundle(make_wide_bundle(embedded_bundle_path("phantom"), 16, tmp_path / "wide"))
    assert bundle.manifest.config.base_width == 16
    assert "widened from base width 8" in bundle.manifest.training["data"]
