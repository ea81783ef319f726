"""Combine preset, variant, config file and command line options, in increasing order of priority."""

from dataclasses import replace
from pathlib import Path

from cascade_rt.config import CascadeConfig, Comparator, Preset, TrainConfig, Variant, load_config


def combine_options(
    preset: Preset,
    variant: Variant | None,
    network: Comparator | None,
    config: Path | None,
    base_width: int | None,
    epochs: tuple[int, int, int] | None,
    seed: int | None,
) -> tuple[CascadeConfig, TrainConfig]:
    """Start from the preset, then apply the variant or network, the TOML file and the options, in this order."""
    cascade, train = load_config(config, preset, variant=variant, network=network)
    if base_width is not None:
        cascade = replace(cascade, base_width=base_width)
    if epochs is not None:
        train = replace(train, epochs=epochs)
    if seed is not None:
        train = replace(train, seed=seed)
    return cascade, train
