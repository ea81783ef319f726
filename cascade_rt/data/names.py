"""Choices offered by the command line, kept free of modules that need numpy."""

from typing import Literal, get_args

Dataset = Literal["msd", "nih", "folder"]
"""MSD Task07 Pancreas, NIH Pancreas-CT, and user data: scans and labels in two folders."""
DATASETS: tuple[Dataset, ...] = get_args(Dataset)

Flip = Literal["none", "x", "y", "z", "xy", "xz", "yz", "xyz"]
"""Axes along which a label is flipped: x is columns, y rows, z slices."""
FLIPS: tuple[Flip, ...] = get_args(Flip)

FlipChoice = Literal["auto", Flip]
FLIP_CHOICES: tuple[FlipChoice, ...] = ("auto", *FLIPS)
