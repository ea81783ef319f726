"""What is printed reads as it was meant."""

import pytest

from cascade_rt_cli.console import volume_text


@pytest.mark.parametrize(
    ("volume_ml", "text"),
    [(0.0, "0.0 ml"), (0.001, "under 0.1 ml"), (0.049, "under 0.1 ml"), (0.05, "0.1 ml"), (76.66, "76.7 ml")],
)
def test_a_volume_that_was_found_is_never_nothing(volume_ml: float, text: str) -> None:
    assert volume_text(volume_ml) == text
