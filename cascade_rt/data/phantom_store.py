"""Phantoms as cases of a store, made once and kept."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.slices import has_case, write_case


def phantom_name(seed: int) -> str:
    """Name of the case of a seed."""
    return f"phantom_{seed:05d}"


def prepare_phantoms(
    store: Path,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    *,
    on_case: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Make the phantoms that a store lacks, one process on each processor.

    Args:
        store: Folder of the case store; made where it is missing.
        seeds: One phantom for each.
        shape: Slices, rows and columns.
        on_case: Called with the name of each finished case.

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
        # Spawned, not forked: the caller may hold threads of torch.
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            for name in pool.map(make, missing):
                on_case(name)
    return names


def _case_name(seed: int, shape: tuple[int, int, int]) -> str:
    return f"{phantom_name(seed)}_{'x'.join(map(str, shape))}"


def _write_phantom(store: Path, shape: tuple[int, int, int], seed: int) -> str:
    phantom = make_phantom(seed, shape)
    name = _case_name(seed, shape)
    write_case(store, name, phantom.hu, phantom.label, phantom.spacing_mm)
    return name
