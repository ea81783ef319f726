"""What the library calls by the names of its parameters, the command line calls by its flags."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from cascade_rt.bundles.bundle import EMBEDDED_NAMES
from cascade_rt_cli import main
from cascade_rt_cli.messages import _NAMED_OTHERWISE, _PARAMETERS, with_flags

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("allow more with `max_voxels`", "allow more with --max-voxels"),
        ("insist with `assume_hu=True`", "insist with --assume-hu"),
        ("use `backend=onnxruntime`", "use --backend onnxruntime"),
        ("try `hu_offset=-1024`", "try --hu-offset -1024"),
        ("choose another `output`", "choose another -o"),
        ("export only float32 with `half=False`", "export only float32 with --no-fp16"),
        ("the file `scan`.nii is missing", "the file `scan`.nii is missing"),
    ],
)
def test_parameters_become_flags_and_nothing_else_does(message: str, shown: str) -> None:
    assert with_flags(message) == shown


@pytest.mark.parametrize("name", [*_PARAMETERS, *_NAMED_OTHERWISE])
def test_each_parameter_is_a_flag_of_some_command(name: str) -> None:
    flag = with_flags(f"`{name}`")
    helps = (CliRunner().invoke(main.main, [command, "--help"]).output for command in main.COMMANDS)
    assert any(re.search(rf"(?<![\w-]){flag}\b", text) for text in helps)


def test_no_message_of_the_library_names_a_flag() -> None:
    commands = re.compile(r"cascade-rt |pip_install|pip install|nvidia-smi|--query|--format=csv|--extra-index-url")
    found = [
        f"{path.name}: {line.strip()}"
        for package in ("cascade_rt", "export/cascade_rt_export")
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"\"[^\"]*(?<![\w-])(--[a-z]|-o\b)", line) and '"""' not in line and not commands.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("command", ["infer", "evaluate", "benchmark", "inspect", "verify"])
def test_help_names_every_embedded_bundle(command: str) -> None:
    text = CliRunner().invoke(main.main, [command, "--help"]).output
    # Lines may break at a hyphen.
    assert all(name in " ".join(text.split()).replace("- ", "-") for name in EMBEDDED_NAMES)
