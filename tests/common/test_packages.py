"""Commands that install a package name that package, as `pyproject.toml` does, and never a name that nobody owns."""

import tomllib
from pathlib import Path

import pytest

from cascade_rt.common.packages import PACKAGES_OF, pip_install

ROOT = Path(__file__).parents[2]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
SOURCES = sorted(
    path
    for folder in ("cascade_rt", "export", "cli", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md", ".sh"}
)


def requirements(extra: str) -> list[str]:
    """What an extra installs, with the extras that it contains in their place, without the platforms."""
    listed = [each.partition(";")[0] for each in EXTRAS[extra]]
    inside = {each: each.removeprefix("cascade-rt[").removesuffix("]") for each in listed if each.startswith("cascade")}
    return [name for each in listed for name in (requirements(inside[each]) if each in inside else [each])]


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - {"dev"}))
def test_packages_are_those_of_the_extra(extra: str) -> None:
    assert list(PACKAGES_OF[extra]) == requirements(extra)


def test_a_command_can_be_pasted_into_a_shell() -> None:
    assert pip_install("cpu", "--upgrade") == "pip install --upgrade 'onnxruntime>=1.27'"


def test_what_pip_cannot_build_or_find_by_itself_comes_with_how() -> None:
    assert pip_install("tensorrt", "--upgrade") == (
        "pip install --upgrade --extra-index-url https://pypi.nvidia.com 'tensorrt-cu13>=10.13' "
        "&& bash requirements/build_pycuda.sh"
    )
    assert (ROOT / "requirements" / "build_pycuda.sh").is_file()


def test_an_extra_of_wheels_asks_for_nothing_that_has_none() -> None:
    assert not [each for each in requirements("gpu") if each.startswith(("pycuda", "tensorrt"))]


def test_nothing_tells_to_install_a_name_that_nobody_owns() -> None:
    documents = [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    telling = ("install 'cascade-rt", "install cascade-rt", 'install "cascade-rt')
    found = [path.name for path in documents if any(each in path.read_text(encoding="utf-8") for each in telling)]
    assert found == []
