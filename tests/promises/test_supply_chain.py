"""What a deployment installs is pinned, hashed, what the tests ran with, and above the versions with known holes."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKED = (ROOT / "requirements" / "deploy-cpu.txt").read_text(encoding="utf-8")
ENTRY = re.compile(
    r"^([a-z0-9.-]+)==([A-Za-z0-9.+]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)
PINS = {name: version for name, version, _ in ENTRY.findall(LOCKED)}

FLOORS = {
    # Remote code from a checkpoint in spite of weights_only: CVE-2025-32434, CVE-2026-24747.
    "torch": (2, 10),
    # Files outside the model's folder, by `..`, links and hard links: CVE-2024-27318, CVE-2026-27489, -34446, -34447.
    "onnx": (1, 21),
    # Paths outside a DICOMDIR's folder: CVE-2026-32711.
    "pydicom": (3, 0, 2),
    # Pickles, and zip files that leave their folder: CVE-2025-58756, CVE-2026-21851.
    "monai": (1, 5, 2),
}
"""The oldest version of each package that has none of the holes known to us that matter here."""


def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def requirements(*extras: str) -> list[str]:
    found = project()
    optional = found["optional-dependencies"]
    return [*found["dependencies"], *(each for extra in extras for each in optional[extra])]  # type: ignore[index,misc]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {normal(name): version for name, version in pairs}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def test_every_line_of_the_lock_is_a_pin_with_its_hashes() -> None:
    assert ENTRY.sub("", LOCKED).replace("\n", "") == "".join(
        line for line in LOCKED.splitlines() if line.startswith("#")
    )


def test_the_lock_names_no_place_to_install_from() -> None:
    assert not re.search(r"://|--index|--find-links|--extra|@|/opt|/work|/tmp", LOCKED)


def test_the_lock_has_the_versions_that_the_tests_run_with() -> None:
    pinned = constraints()
    assert {name: version for name, version in PINS.items() if pinned.get(name) != version} == {}


@pytest.mark.parametrize("requirement", requirements("cpu", "openvino", "sign"))
def test_whatever_a_deployment_needs_is_in_the_lock(requirement: str) -> None:
    name, floor = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
    assert numbers(PINS[normal(name)]) >= numbers(floor)


@pytest.mark.parametrize("extra", sorted(project()["optional-dependencies"]))  # type: ignore[call-overload]
def test_every_package_of_an_extra_is_pinned(extra: str) -> None:
    pinned = constraints()
    named = (re.match(r"[\w.-]+", requirement)[0] for requirement in requirements(extra))  # type: ignore[index]
    assert [name for name in named if normal(name) not in {*pinned, "cascade-rt"}] == []


def test_every_package_of_nvidia_is_for_one_version_of_cuda() -> None:
    pinned = constraints()
    bindings, runtime = pinned["cuda-bindings"], pinned["nvidia-cuda-runtime"]
    cuda = {numbers(bindings)[0], numbers(runtime)[0]}
    cuda |= {int(found[1]) for name in pinned if (found := re.search(r"(?:^|-)cu(\d+)(?:-|$)", name))}
    assert cuda == {13}
    assert "tensorrt" not in pinned, "its version decides for which CUDA it is"


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_versions_with_known_holes_are_below_the_floor(name: str) -> None:
    every = requirements(*project()["optional-dependencies"])  # type: ignore[misc]
    floors = [found[1] for each in every if (found := re.match(rf"{name}>=([\d.]+)", each))]
    assert floors
    assert all(numbers(floor) >= FLOORS[name] for floor in floors)
    assert numbers(constraints()[name]) >= FLOORS[name]


def test_nothing_is_taken_from_outside_the_index() -> None:
    every = requirements(*project()["optional-dependencies"])  # type: ignore[misc]
    assert [each for each in every if "@" in each or "://" in each] == []
