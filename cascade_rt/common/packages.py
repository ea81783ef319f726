"""Import of optional packages, and the commands that install them."""

import importlib
import shlex
from collections.abc import Mapping
from typing import Any

from cascade_rt.errors import BackendUnavailableError

_TRAIN = ("torch>=2.10", "safetensors>=0.5", "matplotlib>=3.9")
PACKAGES_OF: Mapping[str, tuple[str, ...]] = {
    "cpu": ("onnxruntime>=1.27",),
    "gpu": ("onnxruntime-gpu[cuda,cudnn]>=1.28", "cuda-bindings>=13.0,<14", "onnx>=1.21"),
    "tensorrt": ("tensorrt-cu13>=10.13", "pycuda>=2026.1"),
    "openvino": ("openvino>=2025.2",),
    "sign": ("cryptography>=44.0",),
    "rtx": ("tensorrt-rtx-cu13>=1.7",),
    "dicom": (
        "pydicom>=3.0.2",
        "pylibjpeg>=2.0",
        "pylibjpeg-openjpeg>=2.3",
        "pylibjpeg-rle>=2.1",
        "pyjpegls>=1.4",
        "highdicom>=0.28",
    ),
    "simpleitk": ("SimpleITK>=2.4",),
    "formats": ("pynrrd>=1.1",),
    "train": _TRAIN,
    "export": (*_TRAIN, "onnx>=1.21", "onnxscript>=0.7.2"),
    "comparators": (*_TRAIN, "monai>=1.6"),
}
"""Packages of each extra, as in `pyproject.toml`. Messages name these packages and not the extra: cascade-rt is not on
any package index, and anyone who registered its name there would have their package installed instead."""
_INDEXES_OF: Mapping[str, tuple[str, ...]] = {"tensorrt": ("--extra-index-url", "https://pypi.nvidia.com")}
"""Where pip finds the packages of an extra that PyPI has only stubs of."""
_BUILT_BY: Mapping[str, str] = {"pycuda>=2026.1": "bash requirements/build_pycuda.sh"}
"""How a package that has no wheels is built, in the repository of cascade-rt."""


def pip_install(extra: str, *options: str) -> str:
    """Return the command that installs the packages of an extra.

    Args:
        extra: The extra of cascade-rt.
        options: Options of `pip install`.
    """
    wheels = [package for package in PACKAGES_OF[extra] if package not in _BUILT_BY]
    builds = [_BUILT_BY[package] for package in PACKAGES_OF[extra] if package in _BUILT_BY]
    pip = shlex.join(["pip", "install", *options, *_INDEXES_OF.get(extra, ()), *wheels])
    return " && ".join([pip, *builds])


def backend_named(name: str) -> str:
    """Return how messages name a backend that needs a package."""
    return f"backend {name!r}"


def import_package(name: str, *, needed_by: str, extra: str) -> Any:
    """Import an optional package or one of its modules.

    Args:
        name: The package or module.
        needed_by: The feature that needs it, for the message.
        extra: The extra of cascade-rt that installs it.

    Raises:
        BackendUnavailableError: The package is not installed, or a shared library it needs cannot be loaded. If the
            package's own Python imports fail, their error is passed through.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise BackendUnavailableError(
            f"{needed_by} needs a package that is not installed ({package}); run: {pip_install(extra)}"
        ) from None
    except (ImportError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(
            f"{needed_by} cannot load {package}, although it is installed ({reason}); "
            f"run: {pip_install(extra, '--force-reinstall')}"
        ) from error
