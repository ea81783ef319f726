"""What the README shows works: its commands parse, its Python runs, its links and make targets are there."""

import re
import shlex
from pathlib import Path

import click
import nibabel as nib
import numpy as np
import pytest

from cascade_rt_cli.main import main
from tests.volume_files import noisy_tissue

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS += sorted((ROOT / "cascade_rt" / "assets").glob("*.md")) + sorted((ROOT / "benchmarks").glob("*.md"))


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def shell_commands(program: str) -> list[str]:
    """Lines of the documents' shell blocks that call a program, continued lines joined."""
    blocks = [block for document in DOCUMENTS for block in code_blocks(document, "sh")]
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


@pytest.mark.parametrize("line", shell_commands("cascade-rt"))
def test_a_command_of_the_documents_is_one_the_program_takes(line: str) -> None:
    _, *arguments = shlex.split(line, comments=True)
    context = main.make_context("cascade-rt", list(arguments))
    name, command, rest = main.resolve_command(context, [*context._protected_args, *context.args])
    assert isinstance(command, click.Command)
    command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("line", shell_commands("make"))
def test_a_make_target_of_the_documents_exists(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(noisy_tissue(64, 64, 2), np.diag([-0.8, -0.8, 2.5, 1])), "scan.nii.gz")
    for block in code_blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {"__name__": "__readme__"})
    assert (tmp_path / "scan_seg.nii.gz").is_file()
