"""Make phantoms and train on them."""

from collections.abc import Sequence
from pathlib import Path

from cascade_rt.data.phantom_store import describe_phantoms, prepare_phantoms
from cascade_rt.data.slices import open_cases
from cascade_rt.data.split import FILE_NAME
from cascade_rt.errors import UsageError
from cascade_rt_cli.console import progress_bar
from cascade_rt_cli.train_run import Plan, run_training


def train_on_phantoms(store: Path, seeds: Sequence[int], shape: tuple[int, int, int], plan: Plan) -> None:
    """Make any missing phantoms and train on them.

    Raises:
        UsageError: The folder is a store made by `cascade-rt prepare`.
    """
    if (store / FILE_NAME).exists():
        raise UsageError(
            f"{store}: is a store that cascade-rt prepare has made; say what it holds: cascade-rt train --dataset"
            " msd|nih|folder STORE"
        )
    with plan.workers.first_before_others(), progress_bar(shown=plan.workers.is_first) as bars:
        making = bars.add_task("phantoms", total=len(seeds))
        names = prepare_phantoms(store, seeds, shape, on_case=lambda _: bars.advance(making))
    run_training(open_cases(store, names), describe_phantoms(seeds, shape), plan)
