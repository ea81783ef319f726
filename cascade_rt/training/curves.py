"""Plot the losses and validation Dice of a run over its epochs."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import nan
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from cascade_rt.common.atomic import atomic_write
from cascade_rt.training.validation import best_epoch

History = Sequence[Mapping[str, float | str]]

_ORGAN, _TUMOR, _BOUNDARY = "#0072b2", "#d55e00", "#6e6e6e"
_LOSSES = {
    "organ_loss": ("organ", _ORGAN),
    "tumor_loss": ("tumor", _TUMOR),
    "boundary_loss": ("shared boundary", _BOUNDARY),
}
_DICE = {"organ_dice": ("organ", _ORGAN), "tumor_dice": ("tumor", _TUMOR)}
_STEP_SHADES = {"S": "#dfe4ea", "I": "#edf0f3", "J": "#f9fafb"}
_MARKED_EPOCHS = 40
"""Each epoch has a marker up to this many epochs. With more, the markers would run together."""


def save_curves(history: History, path: Path) -> None:
    """Plot the history of a run of at least one epoch as PNG, atomically replacing an existing file.

    Raises:
        OutputError: The system refuses to write.
    """
    figure = draw_curves(history)
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=120), overwrite=True)


def draw_curves(history: History) -> Figure:
    """Plot the losses and, if the run was validated, the Dice below. Steps S, I and J are shaded and named."""
    best = best_epoch(history)
    count = 1 if best is None else 2
    # Not pyplot, which keeps every figure of the process alive and opens windows.
    figure = Figure(figsize=(9, 1 + 2.8 * count), layout="constrained")
    panels = figure.subplots(count, sharex=True, squeeze=False)[:, 0]
    for panel in panels:
        _shade_steps(panel, history, named=panel is panels[0])
    _draw_losses(panels[0], history)
    if best is not None:
        _draw_dice(panels[1], history, best)
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(0.5, len(history) + 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    return figure


def _draw_losses(panel: Axes, history: History) -> None:
    """Plot the losses on a log scale, as they lie decades apart. Zeros (boundary loss before its step) are left out."""
    panel.set_yscale("log", nonpositive="mask")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_ylabel("training loss")
    computed = {name for entry in history for name, value in entry.items() if value}
    _draw_lines(panel, history, {name: line for name, line in _LOSSES.items() if name in computed})
    _name_lines(panel)


def _draw_dice(panel: Axes, history: History, best: int) -> None:
    panel.set_ylim(0, 1)
    panel.set_ylabel("validation Dice")
    _draw_lines(panel, history, _DICE)
    panel.axvline(best, color="#333333", linewidth=1, linestyle=(0, (4, 3)), label=f"best: epoch {best}")
    _name_lines(panel)


def _draw_lines(panel: Axes, history: History, titles: Mapping[str, tuple[str, str]]) -> None:
    """Draw a line for each metric that any epoch has, with gaps where it is missing."""
    epochs = range(1, len(history) + 1)
    marker = "o" if len(history) <= _MARKED_EPOCHS else None
    for name, (title, color) in titles.items():
        if any(name in entry for entry in history):
            values = [float(entry.get(name, nan)) for entry in history]
            panel.plot(epochs, values, color=color, marker=marker, markersize=3.5, linewidth=1.6, label=title)
    panel.grid(axis="y", color="#d3d8de", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _name_lines(panel: Axes) -> None:
    """Put the legend beside the panel: losses and Dice can reach every corner of it."""
    if panel.get_lines():
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _shade_steps(panel: Axes, history: History, *, named: bool) -> None:
    """Shade the epochs of each training step, and write its name above them."""
    first = 1
    for name, epochs in groupby(str(entry["step"]) for entry in history):
        after = first + len(list(epochs))
        panel.axvspan(first - 0.5, after - 0.5, color=_STEP_SHADES[name], linewidth=0, zorder=0)
        if named:
            place = ((first + after - 1) / 2, 1.02)
            panel.text(*place, name, transform=panel.get_xaxis_transform(), ha="center", va="bottom", weight="bold")
        first = after
