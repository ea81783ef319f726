"""The result of a run: the mask, its measurements, its status and warnings, and its provenance."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from cascade_rt.common.arguments import as_path
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.byte_probabilities import to_bytes, to_floats
from cascade_rt.common.hashing import FileRecord, FileState
from cascade_rt.common.labels import Target
from cascade_rt.config import CascadeConfig
from cascade_rt.errors import InputWarning, UsageError
from cascade_rt.models.crop import Box
from cascade_rt.results.islands import IslandRecord
from cascade_rt.results.measurements import Measurements
from cascade_rt.scans.pixel_grid import PixelGrid
from cascade_rt.scans.search import SearchRecord

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from cascade_rt.scans.volume import Volume

REPORT_VERSION = 3
"""The report version that `assets/report.schema.json` describes."""
PLAUSIBLE_ORGAN_ML = (10.0, 250.0)
"""A pancreas (including tumor) with a volume outside this range is reported as implausible."""

Status = Literal[
    "ok",
    "no_organ",
    "no_tumor",
    "organ_only",
    "tumor_only",
    "no_tumor_only",
    "implausible_organ",
    "organ_touches_border",
]

STATUS_SENTENCES: Mapping[Status, str] = {
    "ok": "pancreas and tumor found",
    "no_organ": "no pancreas found",
    "no_tumor": "pancreas found, no tumor",
    "organ_only": "pancreas found; this bundle does not look for tumors",
    "tumor_only": "tumor found; this bundle does not look for the pancreas",
    "no_tumor_only": "no tumor found; this bundle does not look for the pancreas",
    "implausible_organ": "the pancreas found has an implausible volume",
    "organ_touches_border": "the pancreas found touches the border of the scan and may be cut off",
}


Probabilities = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
"""float32 from 0 to 1, or bytes in units of 1/255 if the run kept them as `uint8`."""
ArrayName = Literal["mask", "organ_prob", "tumor_prob"]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class OnGrid:
    """A segmentation on the original grid of the scan. All arrays are `[i, j, k]`, views of the segmentation's."""

    mask: npt.NDArray[np.uint8]
    """0 background, 1 pancreas, 2 tumor."""
    affine: npt.NDArray[np.float64]
    """4x4, from the index (i, j, k) to world mm (RAS+)."""
    organ_prob: Probabilities | None = None
    """As in the segmentation; None if not kept."""
    tumor_prob: Probabilities | None = None
    """As in the segmentation, 0 outside the boxes; None if not kept."""

    def __repr__(self) -> str:
        kept = [name for name in ("organ_prob", "tumor_prob") if getattr(self, name) is not None]
        size = "x".join(map(str, self.mask.shape))
        return f"<OnGrid: {', '.join(['mask', *kept])} of {size} voxels (i, j, k), affine>"


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The result of the cascade on one scan."""

    volume: "Volume"
    """The scan."""
    mask: npt.NDArray[np.uint8]
    """`[z, row, col]`, canonical frame: 0 background, 1 pancreas, 2 tumor."""
    status: Status
    measurements: Measurements
    boxes: Mapping[int, Box]
    """For each slice processed by stage 2, its crop box in the scan's own pixels, rounded outward if the scan was
    resampled for the networks."""
    warnings: tuple[InputWarning, ...]
    """What is doubtful about the scan and the result."""
    timings: Mapping[str, float]
    """Seconds of each step. Steps in other threads count only for as long as the networks waited for them."""
    provenance: Mapping[str, Any]
    """Bundle, engine and versions."""
    slices_without_organ: int = 0
    """Number of slices in which stage 1 found nothing. Stage 2 sees them whole or not at all, depending on the bundle's
    policy."""
    input_file: FileRecord | None = None
    """The file of the scan; None if it did not come from a file."""
    mask_file: FileRecord | None = None
    """The file of the mask; None if it has not been written."""
    result_files: Mapping[Path, FileState] = field(default_factory=dict)
    """All files that were written of this result, as they were then. Not in the report, which is one of them."""
    search: SearchRecord = field(default_factory=SearchRecord)
    """Where stage 1 has looked."""
    tumor_sought: bool = True
    """Whether the bundle looked for tumors. If not, their volume is unknown, not 0."""
    islands: IslandRecord = field(default_factory=IslandRecord)
    """Which islands of the mask were kept."""
    working_grid: PixelGrid | None = None
    """The pixel grid on which the networks saw the slices, or None if it is the scan's own."""
    wall_s: float = 0.0
    """Wall-clock seconds from the scan's turn to its result."""
    organ_prob: Probabilities | None = None
    """`[z, row, col]`, or None if not requested. It is stage 1's. If both stages look for the pancreas, it is stage 2's
    instead, from which the mask is made, and 0 outside the boxes."""
    tumor_prob: Probabilities | None = None
    """`[z, row, col]`, 0 outside the boxes; None if not requested or if the bundle does not look for tumors."""

    @property
    def organ_sought(self) -> bool:
        """Whether the bundle looked for the pancreas. If not, its volume is unknown, not 0."""
        return self.status not in {"tumor_only", "no_tumor_only"}

    def with_timings(self, timings: Mapping[str, float], wall_s: float | None = None) -> "Segmentation":
        """Return a copy with more steps timed, such as saving, and with the total wall-clock time."""
        return replace(self, timings={**self.timings, **timings}, wall_s=self.wall_s if wall_s is None else wall_s)

    def on_grid(self) -> OnGrid:
        """Return mask, probabilities and affine on the original grid of the scan.

        The mask of `Volume.from_array(array, affine)` then matches `array` voxel by voxel, whatever its orientation.
        The mask of a file matches the voxels that nibabel reads from it. Axes of length 1 after the third are omitted.
        """
        grid = self.volume.grid
        organ, tumor = (
            None if prob is None else grid.from_canonical(prob) for prob in (self.organ_prob, self.tumor_prob)
        )
        return OnGrid(grid.from_canonical(self.mask), grid.affine, organ, tumor)

    def probabilities(self, *, on_grid: bool = True) -> dict[Target, npt.NDArray[np.float32]]:
        """Return the probability maps by what they are of: `organ`, and `tumor` if the bundle looks for tumors.

        They are the output of the networks, before islands were dropped from the mask.

        Args:
            on_grid: Whether the maps are on the grid of the scan, `[i, j, k]`, or in the canonical frame,
                `[z, row, col]`.

        Returns:
            From 0 to 1, whether the run kept them as float32 or as bytes.

        Raises:
            UsageError: They were not kept.
        """
        return {target: to_floats(prob) for target, prob in self._kept(on_grid=on_grid).items()}

    def _kept(self, *, on_grid: bool) -> dict[Target, Probabilities]:
        """Return the probability maps as they were kept. Raises UsageError if they were not."""
        source = self.on_grid() if on_grid else self
        maps: dict[Target, Probabilities | None] = {"organ": source.organ_prob, "tumor": source.tumor_prob}
        kept = {target: prob for target, prob in maps.items() if prob is not None}
        if not kept:
            raise UsageError("the probabilities were not kept; run the cascade with keep_probabilities=True")
        return kept

    def to_simpleitk(self, which: ArrayName = "mask") -> Any:
        """Return one of the arrays as a `SimpleITK.Image`, at the place of the scan in the world (LPS).

        Args:
            which: The mask, or a probability map.

        Raises:
            UsageError: Probabilities were not kept, or `which` is not one of these names.
            BackendUnavailableError: The package SimpleITK is not installed.
        """
        from cascade_rt.scans.simpleitk import to_simpleitk

        return to_simpleitk(self._array(which), self.volume.grid.affine)

    def _array(self, which: object) -> npt.NDArray[Any]:
        """Return one of the arrays on the grid of the scan. Raises UsageError if there is none of this name."""
        if not isinstance(which, str) or which not in get_args(ArrayName):
            raise UsageError(f"which: {which!r} does not exist; use mask, organ_prob or tumor_prob")
        array: npt.NDArray[Any] | None = getattr(self.on_grid(), which)
        if array is None and which == "tumor_prob" and not self.tumor_sought:
            raise UsageError(
                "which: tumor_prob does not exist, because this bundle does not look for tumors; use organ_prob"
            )
        if array is None:
            raise UsageError(f"which: {which} was not kept; run the cascade with keep_probabilities=True")
        return array if which == "mask" else to_floats(array)

    def to_nibabel(self, which: ArrayName = "mask") -> "Nifti1Image":
        """Return one of the arrays as a nibabel image, with the geometry of the scan's own header.

        Args:
            which: The mask, as written by `save`, or a probability map.

        Raises:
            UsageError: Probabilities were not kept, or `which` is not one of these names.
        """
        from nibabel.nifti1 import Nifti1Header, Nifti1Image
        from nibabel.nifti2 import Nifti2Image

        from cascade_rt.scans.nifti_masks import source_header

        array = self._array(which)
        header = source_header(self.volume.grid, array.dtype)
        kind: Any = Nifti1Image if type(header) is Nifti1Header else Nifti2Image
        image: Nifti1Image = kind(array, header.get_best_affine(), header)
        return image

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the mask as uint8 on the grid of the input, with the same shape and affine.

        Args:
            path: The suffix decides the format: .nii.gz, .nii, .nrrd, .seg.nrrd (for 3D Slicer) or .mha.
            overwrite: Whether an existing file may be replaced.

        Raises:
            OutputExistsError: The file exists and `overwrite` is False.
            OutputError: The name has another suffix, or the file cannot be written.
        """
        from cascade_rt.scans.volume import write_mask

        write_mask(self.mask, self.volume, path, overwrite=overwrite)

    def save_probabilities(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the probability maps on the grid of the input, as one NIfTI file of four axes.

        Along the last axis lie pancreas and tumor, or what the bundle looks for of the two. Values are bytes in units
        of 1/255, with that slope in the header, so that programs read them as 0 to 1. `descrip` names the maps.

        Raises:
            OutputExistsError: The file exists and `overwrite` is False.
            OutputError: The file cannot be written.
            UsageError: Probabilities were not kept.
        """
        from cascade_rt.scans.volume import write_probabilities

        sought = {"organ": self.organ_sought, "tumor": self.tumor_sought}
        maps = {target: to_bytes(prob) for target, prob in self._kept(on_grid=False).items() if sought[target]}
        write_probabilities(maps, self.volume, path, overwrite=overwrite)

    def _repr_png_(self) -> bytes:
        """Return the preview as PNG, which notebooks show."""
        from cascade_rt.results.preview import render_preview

        file = io.BytesIO()
        render_preview(self).save(file, format="PNG")
        return file.getvalue()

    def __repr__(self) -> str:
        found = self.measurements
        volumes = [f"pancreas {found.pancreas_ml:.1f} ml"] if self.organ_sought else []
        volumes += [f"tumor {found.tumor_ml:.1f} ml"] if self.tumor_sought else []
        return f"<Segmentation of {self.volume.name!r}: {self.status}, {', '.join(volumes)}>"

    def save_report(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the report as JSON. Raises like `save`."""
        from cascade_rt.scans.volume import refuse_scan

        as_path("path", path)
        refuse_scan(path, self.volume)
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"
        write_bytes(path, text.encode(errors="backslashreplace"), overwrite=overwrite)

    def to_json(self) -> dict[str, Any]:
        """Return the report: everything but the arrays, as plain values."""
        found = self.measurements
        return {
            "report_version": REPORT_VERSION,
            "case": self.volume.name,
            "status": self.status,
            "intended_use": self.provenance["bundle"]["intended_use"],
            "volumes_ml": {
                "organ": found.organ_ml if self.organ_sought else None,
                "pancreas": found.pancreas_ml if self.organ_sought else None,
                "tumor": found.tumor_ml if self.tumor_sought else None,
            },
            "lesions": [asdict(lesion) for lesion in found.lesions],
            "slices": {
                "total": len(self.mask),
                "scattered": self.volume.scattered,
                "without_organ_in_stage1": self.slices_without_organ,
                "sent_to_stage2": len(self.boxes),
                "with_organ": found.organ_slices if self.organ_sought else None,
                "with_tumor": found.tumor_slices if self.tumor_sought else None,
            },
            "search": asdict(self.search),
            "islands": asdict(self.islands),
            "boxes": [{"slice": index, **asdict(box)} for index, box in sorted(self.boxes.items())],
            "input": None if self.input_file is None else asdict(self.input_file),
            "output": None if self.mask_file is None else asdict(self.mask_file),
            "geometry": {
                "shape": list(self.mask.shape),
                "spacing_mm": list(self.volume.spacing_mm),
                "working_grid": None if self.working_grid is None else asdict(self.working_grid),
                "file": {
                    "shape": list(self.volume.grid.shape),
                    "affine": self.volume.grid.affine.tolist(),
                    "orientation": _axis_codes(self.volume.grid.orientation),
                },
            },
            "warnings": [asdict(warning) for warning in self.warnings],
            "timings_s": dict(self.timings),
            "wall_s": self.wall_s,
            "provenance": dict(self.provenance),
        }


def report_schema_path() -> Path:
    """Return the path of the JSON Schema of reports, a file of the package."""
    return Path(__file__).parents[1] / "assets" / "report.schema.json"


def _axis_codes(orientation: npt.NDArray[np.float64]) -> str:
    """Return the directions of a file's axes, such as RAS: right, anterior, superior."""
    return "".join(("LR", "PA", "IS")[int(axis)][int(sign > 0)] for axis, sign in orientation)


def judge(
    mask: npt.NDArray[np.uint8], found: Measurements, config: CascadeConfig, *, across_slices: bool = True
) -> Status:
    """Return the status of a mask; the most serious doubt takes precedence.

    A pancreas that is too small is implausible only if it does not touch the border of the scan, which would explain
    its size. Tumor without any pancreas counts as no organ, because it was found by stage 2 alone.

    Args:
        mask: `[z, row, col]`, labels.
        found: The measurements of the mask.
        config: What the cascade looks for.
        across_slices: Whether the slices are adjacent in the patient. If not, the volume and the first and last slice
            mean nothing.
    """
    if not config.finds_organ:
        return "tumor_only" if found.tumor_ml else "no_tumor_only"
    if found.pancreas_ml == 0:
        return "no_organ"
    low, high = PLAUSIBLE_ORGAN_ML
    ends = (mask[0], mask[-1]) if across_slices else ()
    borders = (*ends, mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1])
    is_cut_off = any(border.any() for border in borders)
    if across_slices and (found.organ_ml > high or (found.organ_ml < low and not is_cut_off)):
        return "implausible_organ"
    if is_cut_off:
        return "organ_touches_border"
    if config.target == "organ":
        return "organ_only"
    return "ok" if found.tumor_ml else "no_tumor"
