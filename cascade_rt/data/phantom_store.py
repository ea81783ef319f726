"""Generate phantoms once and keep them as cases of a store."""

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from cascade_rt.common.processors import available_cpus
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.slices import has_case, write_case

_DESCRIPTION = "synthetic phantoms"


def describe_phantoms(seeds: Sequence[int], shape: tuple[int, int, int]) -> str:
    """Describe the phantoms used in training. The description is recorded in the bundle."""
    return f"{_DESCRIPTION}, seeds {seeds[0]} to {seeds[-1]}, {' x '.join(map(str, shape))} voxels"


def is_synthetic(description: str) -> bool:
    """Return whether the described training data were phantoms. Such a bundle is for demonstration only."""
    return description.startswith(_DESCRIPTION)


def prepare_phantoms(
    store: Path,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    *,
    on_case: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Generate the phantoms missing from a store, with one process per processor.

    Args:
        store: Folder of the case store, created if missing.
        seeds: One seed per phantom.
        shape: Number of slices, rows and columns.
        on_case: Called with the name of each finished case, or "already there" for an existing one.

    Returns:
        The names of all cases, in the order of the seeds.
    """
    names = [_case_name(seed, shape) for seed in seeds]
    missing = [seed for seed, name in zip(seeds, names, strict=True) if not has_case(store, name)]
    for _ in range(len(names) - len(missing)):
        on_case("already there")
    make = partial(_write_phantom, store, shape)
    if len(missing) == 1:
        on_case(make(missing[0]))
    elif missing:
        # Spawn rather than fork, because the caller may hold torch threads.
        # The parent handles Ctrl-C. Otherwise each worker would print its own traceback.
        ignore_interrupts = (signal.SIGINT, signal.SIG_IGN)
        context = get_context("spawn")
        with ProcessPoolExecutor(available_cpus(), context, signal.signal, ignore_interrupts) as pool:
            for name in pool.map(make, missing):
                on_case(name)
    return names


def _case_name(seed: int, shape: tuple[int, int, int]) -> str:
    return f"phantom_{seed:05d}_{'x'.join(map(str, shape))}"


def _write_phantom(store: Path, shape: tuple[int, int, int], seed: int) -> str:
    phantom = make_phantom(seed, shape)
    name = _case_name(seed, shape)
    write_case(store, name, phantom.hu, phantom.label, phantom.spacing_mm)
    return name
