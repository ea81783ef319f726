"""Training on phantoms, which are made first."""

from collections.abc import Sequence
from pathlib import Path

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.phantom_store import describe_phantoms, prepare_phantoms
from cascade_rt.data.slices import open_cases
from cascade_rt_cli.console import progress_bar
from cascade_rt_cli.train_run import run_training


def train_on_phantoms(
    store: Path,
    run: Path,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    cascade: CascadeConfig,
    config: TrainConfig,
    *,
    validate: int,
    init: Path | None,
    resume: bool,
) -> None:
    """Make the phantoms that are missing and train on them."""
    with progress_bar() as bars:
        making = bars.add_task("phantoms", total=len(seeds))
        names = prepare_phantoms(store, seeds, shape, on_case=lambda _: bars.advance(making))
    data, cases = describe_phantoms(seeds, shape), open_cases(store, names)
    run_training(cases, run, cascade, config, data=data, validate=validate, init=init, resume=resume)
