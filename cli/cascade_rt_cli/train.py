"""`cascade-rt train`: train a cascade on cases and write a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from cascade_rt.config import (
    COMPARATORS,
    PRESETS,
    VARIANTS,
    Comparator,
    Preset,
    Variant,
    load_config,
)
from cascade_rt.data.names import DATASETS, Dataset
from cascade_rt_cli.messages import needs_extra
from cascade_rt_cli.options import PATH, shape_option


@click.command()
@click.argument("data", required=False, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="RUN", help="Folder of the run.")
@click.option(
    "--dataset",
    type=click.Choice(["phantom", *DATASETS]),
    default="phantom",
    show_default=True,
    help="Kind of data. phantom: synthetic scans, made here. The others: a store from `cascade-rt prepare`.",
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    default="practical",
    show_default=True,
    help="Training settings: the paper's, the paper's with the loss weights of the authors' code, or ones that learn "
    "within hours on a small machine.",
)
@click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    help="A row of the paper's Table 3 (u to m-p-t-l-f, the whole method) or Figure 10.  [default: the whole method]",
)
@click.option(
    "--network",
    type=click.Choice(COMPARATORS),
    help="A network of Table 1 on whole slices, instead of the cascade.",
)
@click.option("--config", type=PATH, metavar="TOML", help="File that overrides the preset ([cascade], [train]).")
@click.option(
    "--base-width", type=click.IntRange(min=8), help="Channels of the first block; the paper uses 64.  [default: 64]"
)
@click.option("--epochs", type=int, nargs=3, metavar="S I J", help="Epochs of the three steps.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the weights and the order.  [default: 0]")
@click.option("--cases", type=click.IntRange(min=1), default=40, show_default=True, help="Number of phantoms.")
@click.option("--first-case", type=click.IntRange(min=0), default=0, show_default=True, help="First phantom seed.")
@shape_option
@click.option(
    "--validate",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Hold out the last N training cases, and measure Dice on them after each epoch.",
)
@click.option("--init", type=PATH, metavar="START", help="Start from the weights of this run or bundle.")
@click.option(
    "--init-stage2",
    type=PATH,
    metavar="START",
    help="Take stage 2 from this run or bundle, and the rest from --init: after step S in two runs, one per stage.",
)
@click.option("--resume", is_flag=True, help="Continue from the last epoch of RUN.")
@needs_extra("train")
def train(
    data: Path | None,
    output: Path,
    dataset: Literal["phantom"] | Dataset,
    preset: Preset,
    variant: Variant | None,
    network: Comparator | None,
    config: Path | None,
    base_width: int | None,
    epochs: tuple[int, int, int] | None,
    seed: int | None,
    cases: int,
    first_case: int,
    shape: tuple[int, int, int],
    validate: int,
    init: Path | None,
    init_stage2: Path | None,
    resume: bool,
) -> None:
    """Train the cascade: step S (stages apart), I (saliency on), J (jointly, on predicted boxes).

    DATA is a store made by `cascade-rt prepare`, whose training cases are used. For phantoms it is the folder that
    holds them, and missing ones are generated there; default: RUN/cases. A checkpoint is written after each epoch; a
    run that was stopped continues with --resume and ends with the same weights. With --validate, the checkpoint of the
    epoch with the highest Dice is kept too, as RUN/best.safetensors. Started by torchrun, it trains on several GPUs,
    each of which gets its share of every batch.

    \b
    Examples:
      cascade-rt train -o runs/first --base-width 8
      cascade-rt train -o runs/tiny --base-width 8 --cases 2 --shape 16 96 96 --epochs 1 1 1
      cascade-rt train --dataset msd stores/msd -o runs/msd --validate 10
      cascade-rt train --dataset msd stores/msd -o runs/m-p --variant m-p --preset paper
      cascade-rt train --dataset msd stores/msd -o runs/unet --network unet
      torchrun --nproc-per-node 2 -m cascade_rt_cli train -o runs/two
    """  # noqa: D301
    from cascade_rt.training.distributed import join_workers
    from cascade_rt.training.run_folder import check_run_folder
    from cascade_rt_cli.train_run import Plan, train_on_phantoms, train_on_store

    if init_stage2 is not None and init is None:
        raise click.UsageError("--init-stage2 needs --init; add it to say where stage 1 comes from")
    cascade_config, train_config = load_config(config, preset, variant=variant, network=network)
    if base_width is not None:
        cascade_config = replace(cascade_config, base_width=base_width)
    if epochs is not None:
        train_config = replace(train_config, epochs=epochs)
    if seed is not None:
        train_config = replace(train_config, seed=seed)
    check_run_folder(output, resume=resume)
    with join_workers() as workers:
        plan = Plan(output, cascade_config, train_config, validate, init, init_stage2, resume, workers)
        if dataset == "phantom":
            train_on_phantoms(data or output / "cases", range(first_case, first_case + cases), shape, plan)
        else:
            train_on_store(dataset, data, plan)
