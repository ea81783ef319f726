"""`auto` takes the best engine that runs and says why not a better one."""

import sys

import pytest

from cascade_rt.bundle import Bundle
from cascade_rt.engines import BACKENDS, BackendChoice, open_engines
from cascade_rt.engines.packages import import_package
from cascade_rt.errors import BackendUnavailableError, UsageError


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages look uninstalled."""
    for package in packages:
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, name)

    class Missing:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])


def test_auto_takes_onnxruntime_where_it_is_installed(bundle: Bundle) -> None:
    engines = open_engines(bundle)
    assert (engines.stage1.info.backend, engines.stage2.info.backend) == ("onnxruntime", "onnxruntime")
    assert engines.passed_over == ()


def test_auto_falls_to_pytorch_and_says_why(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "onnxruntime")
    engines = open_engines(bundle)
    assert engines.stage1.info.backend == "pytorch"
    assert engines.passed_over == (
        "backend 'onnxruntime' needs a package that is not installed (onnxruntime); run: pip install 'cascade-rt[cpu]'",
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_asked_for_is_never_replaced(
    bundle: Bundle, backend: BackendChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "onnxruntime", "torch")
    with pytest.raises(BackendUnavailableError, match=f"backend '{backend}' needs a package that is not installed"):
        open_engines(bundle, backend)


def test_without_any_backend_all_reasons_are_given(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "onnxruntime", "torch")
    with pytest.raises(BackendUnavailableError, match=r"no engine can run here: .*onnxruntime.*; .*torch"):
        open_engines(bundle)


def test_a_package_that_is_there_but_broken_keeps_its_own_error(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "broken_engine.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
        import_package("broken_engine", backend="broken", extra="broken")


def test_half_precision_is_taken_where_it_is_asked_for(bundle: Bundle) -> None:
    engines = open_engines(bundle, "onnxruntime", "fp16")
    assert (engines.stage1.info.precision, engines.stage2.info.precision) == ("fp16", "fp16")


def test_the_baseline_has_no_half_precision(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="'pytorch' is the float32 baseline and has no fp16"):
        open_engines(bundle, "pytorch", "fp16")
