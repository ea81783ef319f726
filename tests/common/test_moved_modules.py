"""Modules can still be imported under the names they had before they were gathered in rooms."""

import subprocess
import sys
from importlib import import_module

import pytest

from cascade_rt.common.moved_modules import _MOVED


@pytest.mark.parametrize(("former", "present"), _MOVED.items(), ids=list(_MOVED))
def test_a_module_under_its_former_name_is_the_same_module_and_a_warning(former: str, present: str) -> None:
    sys.modules.pop(f"cascade_rt.{former}", None)
    with pytest.warns(DeprecationWarning, match=rf"cascade_rt\.{former} is now cascade_rt\.{present}"):
        module = import_module(f"cascade_rt.{former}")
    assert module is import_module(f"cascade_rt.{present}")


def test_modules_inside_a_package_that_moved_are_the_same_too() -> None:
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from cascade_rt.nifti.options import ScanOptions\n"
        "from cascade_rt.cohort.cases import plan_cases\n"
        "import cascade_rt.run.cohort.cases as cases, cascade_rt.scans.nifti.options as options\n"
        "print(ScanOptions is options.ScanOptions, plan_cases is cases.plan_cases, cases.__name__)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True", "cascade_rt.run.cohort.cases"]


def test_a_module_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"cascade_rt\.spleen"):
        import_module("cascade_rt.spleen")
