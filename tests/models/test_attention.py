"""The non-local localisation module attends as Eq. 5 to 8 say."""

import torch

from cascade_rt.models.localization import ChannelAttention, LocalizationModule, SpatialAttention


def test_rows_of_the_channel_attention_sum_to_1() -> None:
    attention = ChannelAttention().attention(torch.randn(2, 16, 6, 5))
    assert attention.shape == (2, 16, 16)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 16))


def test_rows_of_the_spatial_attention_sum_to_1() -> None:
    attention = SpatialAttention(16).attention(torch.randn(2, 16, 6, 5))
    assert attention.shape == (2, 30, 30)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 30))


def test_channel_attention_is_eq_6_written_out() -> None:
    features = torch.randn(1, 4, 3, 2)
    flat = features[0].reshape(4, 6)
    weights = torch.softmax(flat @ flat.T, dim=1)
    expected = (weights @ flat).reshape(1, 4, 3, 2) + features
    torch.testing.assert_close(ChannelAttention()(features), expected)


def test_spatial_attention_is_eq_8_with_the_weights_of_eq_7() -> None:
    module, features = SpatialAttention(8), torch.randn(1, 8, 3, 2)
    query, key, value = (conv(features)[0].reshape(-1, 6) for conv in (module.query, module.key, module.value))
    expected = torch.zeros(8, 6)
    for i in range(6):
        weights = torch.softmax(torch.stack([query[:, i] @ key[:, j] for j in range(6)]), dim=0)
        expected[:, i] = sum(weights[j] * value[:, j] for j in range(6))
    torch.testing.assert_close(module(features), expected.reshape(1, 8, 3, 2) + features)


def test_without_gamma_both_attentions_are_the_identity() -> None:
    module, features = LocalizationModule(8), torch.randn(1, 8, 4, 4)
    torch.nn.init.zeros_(module.channel.gamma)
    torch.nn.init.zeros_(module.spatial.gamma)
    torch.testing.assert_close(module(features).features, features)


def test_attention_is_computed_in_float32_under_mixed_precision() -> None:
    features = torch.randn(1, 16, 8, 8) * 3
    exact = ChannelAttention().attention(features.bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ChannelAttention().attention(features.bfloat16())
    torch.testing.assert_close(mixed, exact)


def test_large_features_stay_finite_in_half_precision() -> None:
    features = torch.full((1, 16, 32, 32), 60.0, dtype=torch.bfloat16)
    assert torch.isfinite(ChannelAttention()(features)).all()
