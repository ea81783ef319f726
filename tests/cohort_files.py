"""Tiny cohorts of NIfTI files, and a cascade without networks whose mask of each scan is known exactly."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from cascade_rt.bundles.bundle import Bundle, Manifest
from cascade_rt.bundles.files import FILE_NAMES
from cascade_rt.common.hashing import FileRecord
from cascade_rt.config import CascadeConfig, CropConfig
from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.run.cascade import Cascade

Array = npt.NDArray[Any]

AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])
VOXEL_ML = 0.8 * 0.8 * 2.5 / 1000
HU = np.array([-100, 100, 200], dtype=np.int16)
"""What the fake cascade takes for background, pancreas and tumor."""


def fake_cascade(
    *,
    tumor_from: float = 0.75,
    target: Literal["tumor", "organ"] = "tumor",
    stage1: Literal["multiscale_unet", "none"] = "multiscale_unet",
    **crop: object,
) -> Cascade:
    """Organ where HU >= 50; what stage 2 finds where HU >= 155 (salient >= 0.75) or another salient value."""
    config = CascadeConfig(
        target=target,
        stage1=stage1,
        saliency=stage1 != "none",
        base_width=8,
        crop=CropConfig(**crop),  # type: ignore[arg-type]
    )
    files = {name: FileRecord("0" * 64, 0) for name in FILE_NAMES}
    manifest = Manifest("fake", "2026-01-01", config, files, {}, {}, {}, "Tests only.")
    engines = Engines(organ_by_hu(50.0, config.window_hu), tumor_by_salient(tumor_from))
    return Cascade(Bundle(Path("fake"), manifest, "0" * 64), engines)


def trained_on(cascade: Cascade, pixel_mm: tuple[float, float] | None) -> Cascade:
    """The same cascade, but for the pixels that its bundle says it was trained on."""
    manifest = cascade.bundle.manifest
    config = replace(manifest.config, pixel_mm=pixel_mm)
    return Cascade(replace(cascade.bundle, manifest=replace(manifest, config=config)), cascade.engines)


def block(*corners: tuple[int, int, int], label: int = 1, shape: tuple[int, int, int] = (4, 8, 8)) -> Array:
    """Labels `[z, row, col]`, 0 but for the voxels named."""
    labels = np.zeros(shape, dtype=np.uint8)
    for corner in corners:
        labels[corner] = label
    return labels


def save_labels(path: Path, labels: Array, affine: Array = AFFINE) -> Path:
    """Write `[z, row, col]` as a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(labels.T), affine), path)
    return path


def save_case(root: Path, name: str, found: Array, truth: Array) -> None:
    """Write a scan in which the fake cascade finds the labels `found`, and its true labels."""
    hu = HU[found]
    # A scan in which next to no voxel is as dense as tissue is refused.
    hu[:, :, ::2] = np.where(found[:, :, ::2] > 0, hu[:, :, ::2], 40)
    save_labels(root / "images" / f"{name}.nii.gz", hu)
    save_labels(root / "labels" / f"{name}.nii.gz", truth)


def save_cohort(root: Path, cases: Mapping[str, tuple[Array, Array]]) -> Path:
    """Write cases (found, truth) into `root`/images and `root`/labels."""
    for name, (found, truth) in cases.items():
        save_case(root, name, found, truth)
    return root


def truncate(path: Path) -> None:
    """Cut the end of a file off; its header stays."""
    path.write_bytes(path.read_bytes()[:-20])
