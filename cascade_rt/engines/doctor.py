"""Diagnose what runs on this machine, what does not and why, and which command fixes it."""

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from cascade_rt.bundles.bundle import default_bundle_path, read_bundle
from cascade_rt.common.packages import pip_install
from cascade_rt.common.version import __version__
from cascade_rt.engines import BACKENDS, Backend, open_engines
from cascade_rt.engines.base import smallest_inputs
from cascade_rt.engines.nvidia import Gpu, find_gpus
from cascade_rt.engines.plans import PlanSource, no_plans
from cascade_rt.engines.smoke_tests import TRIALS, Trial
from cascade_rt.errors import BackendUnavailableError, CascadeError

DIAGNOSIS_VERSION = 1

_PACKAGES: Mapping[str, Sequence[str]] = {
    "numpy": ["numpy"],
    "nibabel": ["nibabel"],
    "OpenVINO": ["openvino"],
    "ONNX Runtime": ["onnxruntime-gpu", "onnxruntime"],
    "PyTorch": ["torch"],
    "TensorRT": ["tensorrt-cu13", "tensorrt"],
    "TensorRT-RTX": ["tensorrt-rtx-cu13", "tensorrt-rtx-cu12"],
    "pycuda": ["pycuda"],
    "cuda-bindings": ["cuda-bindings"],
    "CUDA runtime": ["nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"],
    "cuDNN": ["nvidia-cudnn-cu13", "nvidia-cudnn-cu12"],
}
"""Packages whose versions are reported, and the distributions that may provide each."""
_EITHER = ("onnxruntime", "onnxruntime-gpu")
"""Distributions with the same files: the one installed last has overwritten those of the other."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether one library or backend works."""

    name: str
    works: bool
    text: str
    """One sentence: what it ran on, or why it does not run."""
    fix: str = ""
    """The command that fixes it, or empty if none does."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The complete diagnosis."""

    versions: Mapping[str, str]
    """Version of each package, or empty if it is not installed."""
    gpu: Gpu | None
    """The first GPU, which everything is tried on."""
    gpus: tuple[Gpu, ...]
    """All GPUs that this process sees."""
    no_gpu: str
    """Why no GPU was found, or empty if one was."""
    clashes: tuple[Finding, ...]
    """Packages that have overwritten one another."""
    libraries: tuple[Finding, ...]
    """Each library, tried on a convolution."""
    backends: tuple[Finding, ...]
    """Each backend, tried on both stages of the embedded bundle, best first."""

    @property
    def best(self) -> str | None:
        """The backend that `auto` chooses, or None if none runs the embedded bundle."""
        return next((finding.name for finding in self.backends if finding.works), None)

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON-compatible values."""
        return {"diagnosis_version": DIAGNOSIS_VERSION, **asdict(self), "best": self.best}


def examine(plans: PlanSource = no_plans, trials: Sequence[Trial] = TRIALS) -> Diagnosis:
    """Run every library, and every backend on the embedded bundle.

    Args:
        plans: Source of engines for the backend `tensorrt`.
        trials: The libraries and how to try them. Each backend needs a trial of the same name.
    """
    gpus, no_gpu = _find_gpus()
    gpu = gpus[0] if gpus else None
    by_name = {trial.name: trial for trial in trials}
    on_bundle = [replace(by_name[name], run=partial(_run_bundle, name, plans)) for name in BACKENDS]
    return Diagnosis(
        versions=package_versions(),
        gpu=gpu,
        gpus=gpus,
        no_gpu=no_gpu,
        clashes=tuple(_clashes(gpu)),
        libraries=tuple(_try(trial, gpu) for trial in trials),
        backends=tuple(_try(trial, gpu) for trial in on_bundle),
    )


def _clashes(gpu: Gpu | None) -> Iterator[Finding]:
    """Yield a finding if ONNX Runtime is installed both for a CPU and for GPUs."""
    versions = [_version([each]) for each in _EITHER]
    if all(versions):
        both = " and ".join(f"{name} {version}" for name, version in zip(_EITHER, versions, strict=True))
        yield Finding(
            "ONNX Runtime",
            works=False,
            text=f"{both} are both installed, and one has overwritten files of the other",
            fix=f"pip uninstall -y {' '.join(_EITHER)} && {pip_install('gpu' if gpu else 'cpu')}",
        )


def _try(trial: Trial, gpu: Gpu | None) -> Finding:
    if trial.needs_gpu and gpu is None:
        return Finding(trial.name, works=False, text="needs an NVIDIA GPU, but none was found")
    try:
        return Finding(trial.name, works=True, text=trial.run())
    except CascadeError as error:
        text, _, fix = str(error).partition("; run: ")
    except (ImportError, OSError) as error:
        text, fix = f"it is installed but broken: {error}", pip_install(trial.extra, "--force-reinstall")
    return Finding(trial.name, works=False, text=" ".join(text.split()), fix=fix)


def _run_bundle(backend: Backend, plans: PlanSource) -> str:
    with open_engines(read_bundle(default_bundle_path()), backend, plans=plans) as engines:
        for engine in (engines.stage1, engines.stage2):
            engine.run(smallest_inputs(engine.stage))
    info = engines.stage1.info
    return "; ".join([f"{info.version} on {info.device}, {info.precision}", *map(str, engines.doubts)])


def _find_gpus() -> tuple[tuple[Gpu, ...], str]:
    try:
        return find_gpus(), ""
    except BackendUnavailableError as error:
        return (), str(error)


def package_versions() -> dict[str, str]:
    """Return the version of each package that a result may depend on, or empty if it is not installed."""
    found = {"cascade-rt": __version__, "Python": platform.python_version()}
    return found | {name: _version(distributions) for name, distributions in _PACKAGES.items()}


def _version(distributions: Sequence[str]) -> str:
    """Return the version of the first distribution that is installed, or empty if none is."""
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
