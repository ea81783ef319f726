"""The work goes on where nobody reads what is printed, or where that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors are those of POSIX")
PROGRAM = """
import sys
from pathlib import Path
import click
from cascade_rt_cli.main import main
from cascade_rt_cli.output import print_event

def work(**_):
    for number in range(3000):
        click.echo("a line that somebody may read")
    print_event("done")
    Path("result").write_text("whole")
    {end}

main.get_command = lambda *_: click.Command("work", callback=work)
main(["work"])
"""


def run_in_shell(folder: Path, shell: str, end: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM.format(end=end))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHON": sys.executable}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_reader_who_has_seen_enough_does_not_end_the_work(tmp_path: Path) -> None:
    done = run_in_shell(tmp_path, '"$PYTHON" program.py | head -1')
    assert (done.returncode, done.stdout, done.stderr) == (0, "a line that somebody may read\n", "")
    assert (tmp_path / "result").read_text() == "whole"


def test_a_full_disk_behind_standard_output_is_reported_with_code_6(tmp_path: Path) -> None:
    done = run_in_shell(tmp_path, '"$PYTHON" program.py > /dev/full')
    assert done.returncode == 6
    assert done.stderr == (
        "cascade-rt: standard output cannot be written (No space left on device); the results were saved, "
        "but the printed output is incomplete\n"
    )
    assert (tmp_path / "result").read_text() == "whole"


def test_an_error_keeps_its_code_if_standard_output_is_full(tmp_path: Path) -> None:
    end = "from cascade_rt.errors import InputError; raise InputError('scan.nii: is cut off')"
    done = run_in_shell(tmp_path, '"$PYTHON" program.py > /dev/full', end)
    assert (done.returncode, done.stderr) == (4, "cascade-rt: error[E_INPUT]: scan.nii: is cut off\n")


@pytest.mark.parametrize("closed", ["2> /dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_an_error_keeps_its_code_if_it_cannot_be_printed(tmp_path: Path, closed: str) -> None:
    end = "from cascade_rt.errors import InputError; raise InputError('scan.nii: is cut off')"
    assert run_in_shell(tmp_path, f'"$PYTHON" program.py {closed}', end).returncode == 4
    assert (tmp_path / "result").read_text() == "whole"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_characters_the_console_cannot_encode_are_escaped(tmp_path: Path, encoding: str) -> None:
    done = run_in_shell(tmp_path, f'PYTHONIOENCODING={encoding} "$PYTHON" program.py | tail -1', "click.echo('\u75c5')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u75c5\n", "")
