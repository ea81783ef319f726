"""What the command line lets a person choose from, apart from the modules that need numpy."""

from typing import Literal, get_args

Dataset = Literal["msd", "nih", "folder"]
"""MSD Task07 Pancreas, NIH Pancreas-CT, and scans and labels of one's own in two folders."""
DATASETS: tuple[Dataset, ...] = get_args(Dataset)

Flip = Literal["none", "x", "y", "z", "xy", "xz", "yz", "xyz"]
"""Axes along which a label is turned round: x are columns, y rows, z slices."""
FLIPS: tuple[Flip, ...] = get_args(Flip)

FlipChoice = Literal["auto", Flip]
FLIP_CHOICES: tuple[FlipChoice, ...] = ("auto", *FLIPS)
