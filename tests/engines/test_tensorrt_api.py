"""Each name of TensorRT that is used here is there in every version that is supported."""

import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from cascade_rt.engines import tensorrt_api
from cascade_rt.engines.tensorrt_api import TensorRTLog, import_tensorrt
from cascade_rt.errors import BackendUnavailableError

LISTS = sorted((Path(__file__).parent / "tensorrt_names").glob("*.txt"))
RTX_ONLY = {"IBuilderConfigRtx": "IBuilderConfig", "TensorRTRtx": "TensorRT"}
"""Protocols of what TensorRT-RTX has besides, and the class it has it in."""


def used_names(only: Callable[[str], bool]) -> dict[str, set[str]]:
    """The members of each protocol, by the name of the class in TensorRT."""
    found: dict[str, set[str]] = {}
    for name, kind in vars(tensorrt_api).items():
        if inspect.isclass(kind) and Protocol in kind.__mro__ and kind is not Protocol and only(name):
            members = {*vars(kind), *inspect.get_annotations(kind)}
            found[RTX_ONLY.get(name, name)] = {member for member in members if not member.startswith("_")}
    return found


def missing(used: Mapping[str, set[str]], there: Mapping[str, set[str]]) -> list[str]:
    return sorted(f"{owner}.{name}" for owner, names in used.items() for name in names - there.get(owner, set()))


def names_in(package: types.ModuleType, classes: Mapping[str, set[str]]) -> dict[str, set[str]]:
    return {name: set(dir(package if name == "TensorRT" else getattr(package, name, None))) for name in classes}


def test_names_are_compared_at_all() -> None:
    used = used_names(lambda name: name not in RTX_ONLY)
    assert {"TF32"} == used["BuilderFlag"]
    assert {"create_network", "build_serialized_network"} <= used["Builder"]
    assert "profiling_verbosity" in used["IBuilderConfig"]


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_tensorrt_has_every_name(path: Path) -> None:
    """On lists that `list_names.py` wrote, since the package cannot be installed without a GPU."""
    there = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        owner, _, names = line.partition(":")
        there[owner] = set(names.split())
    assert missing(used_names(lambda name: name not in RTX_ONLY), there) == []


def test_both_ends_of_the_supported_versions_are_listed() -> None:
    assert {path.stem.split("-")[1].rsplit(".", 2)[0] for path in LISTS} >= {"10.13", "11.4"}


def test_tensorrt_rtx_has_every_name() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13")
    for used in (used_names(lambda name: name not in RTX_ONLY), used_names(lambda name: name in RTX_ONLY)):
        assert missing(used, names_in(rtx, used)) == []


def test_a_missing_package_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install .*'tensorrt-cu13>=10"):
        import_tensorrt("tensorrt")


def test_a_version_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = types.ModuleType("tensorrt")
    old.__version__ = "10.9.0.34"  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", old)
    with pytest.raises(BackendUnavailableError, match=r"10\.13 or later, but 10\.9\.0\.34 is installed"):
        import_tensorrt("tensorrt")


def test_the_log_keeps_errors_and_the_list_of_layers_and_nothing_else() -> None:
    log = TensorRTLog(None)
    for severity, message in ((1, "first"), (0, "no\n  memory"), (2, "a warning"), (4, "Layers:\nName: a")):
        log.note(severity, message)
    assert (log.errors, log.last_error, log.layers) == (["first", "no\n  memory"], "no memory", "Layers:\nName: a")


def test_a_cleared_log_has_no_error_to_tell() -> None:
    log = TensorRTLog(None)
    log.note(1, "stale")
    log.clear()
    assert log.last_error == "TensorRT gave no reason"
