"""Limits of the gate come from a file, and what is no limit is refused."""

import os
from pathlib import Path

import pytest

from cascade_rt.common.tolerances import GATE_LIMITS
from cascade_rt.errors import UsageError
from cascade_rt_export.gate import read_limits


def read(folder: Path, text: str) -> None:
    (folder / "limits.toml").write_text(text)
    read_limits(folder / "limits.toml")


def test_what_a_file_leaves_out_is_as_usual(tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text("[fp16]\nleast_dice = 0.99\n")
    limits = read_limits(tmp_path / "limits.toml")
    assert limits["fp32"] == GATE_LIMITS["fp32"]
    assert (limits["fp16"].least_dice, limits["fp16"].mean_error) == (0.99, GATE_LIMITS["fp16"].mean_error)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_of_limits_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "limits.toml")
    with pytest.raises(
        UsageError, match=r"limits\.toml: cannot be read \(it is a pipe or a device, not a regular file"
    ):
        read_limits(tmp_path / "limits.toml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[int8]", r"limits\.toml: unknown table \[int8\]; limits have the tables \[fp32\], \[fp16\] and \[bf16\]"),
        ("fp16 = 1", r"limits\.toml: fp16 must be a table, got 1"),
        ("[fp16]\nleast_dise = 0.9", r"unknown key .*fp16\.least_dise; did you mean 'least_dice'\?"),
        ("[fp16]\nleast_dice = nan", r"fp16\.least_dice must lie between 0 and 1, got nan"),
        ("[fp32]\nmax_error = -1", r"fp32\.max_error must lie between 0 and 1, got -1"),
    ],
)
def test_an_invalid_limit_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read(tmp_path, text)
