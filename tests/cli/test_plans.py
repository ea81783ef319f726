"""Engines for `--backend tensorrt`: what compiling them needs."""

import sys

import pytest

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.packages import pip_install
from cascade_rt.errors import BackendUnavailableError
from cascade_rt_cli.plans import plans
from tests.hidden_packages import hide


def test_without_onnx_the_packages_for_gpus_are_named_and_not_pytorch(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("cascade_rt_export.")]:
        monkeypatch.delitem(sys.modules, name)
    hide(monkeypatch, "onnx")
    with pytest.raises(BackendUnavailableError) as refusal:
        plans(bundle, "stage1", "fp32", 0)
    assert str(refusal.value).endswith(f"not installed (onnx); run: {pip_install('gpu')}")
    assert "onnx>=" in str(refusal.value)
