"""Writes the hash-locked requirements of a deployment: `python requirements/lock.py`, with the network.

pip itself resolves them, once for each platform and Python that is supported, with the versions of `constraints.txt`;
it reads metadata only and installs nothing. What it would take on each goes into one file:

    requirements/deploy-cpu.txt    cascade-rt's own dependencies and its extras `cpu`, `openvino` and `sign`

The hashes are those of the wheels that pip chose, so the file covers these platforms and no other; pip refuses a wheel
whose hash is not in it. Where the index lies is pip's own business (its configuration) and is not in the file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
LOCKED = ROOT / "requirements" / "deploy-cpu.txt"
EXTRAS = ("cpu", "openvino", "sign")
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("x86_64",)
# Newest first: pip takes the first tag that a wheel has.
GLIBCS = ("2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")

Pins = dict[tuple[str, str], set[str]]


def requirements() -> list[str]:
    """What a deployment needs, as `pyproject.toml` says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]


def resolve(python: str, machine: str) -> Iterable[dict[str, Any]]:
    """What pip would install on a Linux machine; each entry is one of its installation report."""
    platforms = [f"--platform=manylinux_{glibc}_{machine}" for glibc in GLIBCS]
    platforms.append(f"--platform=manylinux2014_{machine}")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
        command += [f"--target={folder}", f"--constraint={CONSTRAINTS}", f"--report={report}", *requirements()]
        subprocess.run(command, check=True)  # noqa: S603  pip, with arguments from this repository
        entries: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return entries


def collect(pins: Pins, entries: Iterable[dict[str, Any]]) -> None:
    """Add the hashes of what pip chose."""
    for entry in entries:
        name = entry["metadata"]["name"].lower().replace("_", "-")
        hashes = entry["download_info"]["archive_info"]["hashes"]
        pins.setdefault((name, entry["metadata"]["version"]), set()).add(hashes["sha256"])


def lines(pins: Pins, covered: Sequence[str]) -> Iterable[str]:
    """The file, line by line."""
    yield "# Written by requirements/lock.py; do not edit."
    yield f"# The dependencies of cascade-rt[{','.join(EXTRAS)}] on {', '.join(covered)}."
    yield "# pip install --require-hashes --only-binary :all: -r requirements/deploy-cpu.txt"
    yield "# pip install --no-deps cascade_rt-*.whl"
    for (name, version), hashes in sorted(pins.items()):
        yield f"{name}=={version} \\"
        options = [f"    --hash=sha256:{each}" for each in sorted(hashes)]
        yield from (f"{option} \\" for option in options[:-1])
        yield options[-1]


def main() -> None:
    """Resolve for every platform, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help=f"default: {' '.join(PYTHONS)}")
    parser.add_argument("--machine", action="append", help=f"default: {' '.join(PLATFORMS)}")
    options = parser.parse_args()
    pythons, machines = options.python or PYTHONS, options.machine or PLATFORMS
    pins: Pins = {}
    for machine in machines:
        for python in pythons:
            collect(pins, resolve(python, machine))
    covered = [f"Linux {machine} with glibc 2.34 or later" for machine in machines]
    covered.append(f"Python {', '.join(pythons)}")
    LOCKED.write_text("\n".join(lines(pins, covered)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
