"""The result of a run: the mask, what it means, how sure one can be of the run, and how it came about."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.hashing import FileRecord
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
"""What `assets/report.schema.json` describes."""
PLAUSIBLE_ORGAN_ML = (10.0, 250.0)
"""A pancreas, with its tumor, outside these volumes is reported as implausible."""

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
    "organ_touches_border": "the pancreas found touches the border of the scan, which may cut it off",
}


@dataclass(frozen=True, eq=False, slots=True)
class OnGrid:
    """What was found, on the grid of the scan as it was given: all arrays `[i, j, k]`, views of the segmentation's."""

    mask: npt.NDArray[np.uint8]
    """0 background, 1 pancreas, 2 tumor."""
    affine: npt.NDArray[np.float64]
    """4x4, from the index (i, j, k) to world mm (RAS+)."""
    organ_prob: npt.NDArray[np.float32] | None = None
    """Where it was kept."""
    tumor_prob: npt.NDArray[np.float32] | None = None
    """Where it was kept; 0 outside the boxes."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What the cascade found in one scan."""

    volume: "Volume"
    """The scan."""
    mask: npt.NDArray[np.uint8]
    """`[z, row, col]`, canonical frame: 0 background, 1 pancreas, 2 tumor."""
    status: Status
    measurements: Measurements
    boxes: Mapping[int, Box]
    """For each slice that stage 2 has seen, the box it was cropped to, in the scan's own pixels; rounded outward where
    the networks saw other ones."""
    warnings: tuple[InputWarning, ...]
    """What is doubtful about the scan."""
    timings: Mapping[str, float]
    """Seconds of each step. Steps that other threads do beside the networks count as long as these waited for them."""
    provenance: Mapping[str, Any]
    """Bundle, engine and versions."""
    slices_without_organ: int = 0
    """Slices in which stage 1 found nothing: stage 2 saw them whole, or not at all, as the bundle's policy says."""
    input_file: FileRecord | None = None
    """The scan's file, where it came from one."""
    mask_file: FileRecord | None = None
    """The mask's file, where it has been written."""
    search: SearchRecord = field(default_factory=SearchRecord)
    """Where stage 1 has looked."""
    tumor_sought: bool = True
    """Whether the bundle looked for tumors; where it did not, their volume is unknown, not 0."""
    islands: IslandRecord = field(default_factory=IslandRecord)
    """Which pieces of the mask were kept."""
    working_grid: PixelGrid | None = None
    """The pixels on which the networks saw the slices, where these are not the scan's own."""
    wall_s: float = 0.0
    """Seconds from the scan's turn to its result, whatever was done in them."""
    organ_prob: npt.NDArray[np.float32] | None = None
    """`[z, row, col]`, where asked for: stage 1's; or, where both stages look for the pancreas, stage 2's, which the
    mask is made of, 0 outside the boxes."""
    tumor_prob: npt.NDArray[np.float32] | None = None
    """`[z, row, col]`, 0 outside the boxes, where asked for and the bundle looks for tumors."""

    @property
    def organ_sought(self) -> bool:
        """Whether the bundle looked for the pancreas; where it did not, its volume is unknown, not 0."""
        return self.status not in {"tumor_only", "no_tumor_only"}

    def with_timings(self, timings: Mapping[str, float], wall_s: float | None = None) -> "Segmentation":
        """The same with more steps timed, such as saving, and with the time that all of it took."""
        return replace(self, timings={**self.timings, **timings}, wall_s=self.wall_s if wall_s is None else wall_s)

    def with_files(self, *, input_file: FileRecord | None, mask_file: FileRecord | None) -> "Segmentation":
        """The same with the files it came from and went to."""
        return replace(self, input_file=input_file, mask_file=mask_file)

    def on_grid(self) -> OnGrid:
        """Return mask, probabilities and affine on the grid of the scan as it was given.

        The mask of `Volume.from_array(array, affine)` then lies on `array`, voxel by voxel, whatever its orientation;
        that of a file lies on the voxels that nibabel reads from it. Axes behind the third, of length 1, are left away.
        """
        grid = self.volume.grid
        organ, tumor = (
            None if prob is None else grid.from_canonical(prob) for prob in (self.organ_prob, self.tumor_prob)
        )
        return OnGrid(grid.from_canonical(self.mask), grid.affine, organ, tumor)

    def to_nibabel(self, which: Literal["mask", "organ_prob", "tumor_prob"] = "mask") -> "Nifti1Image":
        """Return one of the arrays as a nibabel image, with the geometry of the scan's own header.

        Args:
            which: The mask, as `save` writes it, or a map of probabilities.

        Raises:
            UsageError: Probabilities were not kept, or there is nothing of this name.
        """
        from nibabel.nifti1 import Nifti1Header, Nifti1Image
        from nibabel.nifti2 import Nifti2Image

        from cascade_rt.scans.volume import source_header

        if which not in {"mask", "organ_prob", "tumor_prob"}:
            raise UsageError(f"which: there is no {which!r}; take mask, organ_prob or tumor_prob")
        array = getattr(self.on_grid(), which)
        if array is None and which == "tumor_prob" and not self.tumor_sought:
            raise UsageError("which: there is no tumor_prob, for this bundle does not look for tumors; take organ_prob")
        if array is None:
            raise UsageError(f"which: {which} was not kept; run the cascade with keep_probabilities=True")
        header = source_header(self.volume.grid, array.dtype)
        kind: Any = Nifti1Image if type(header) is Nifti1Header else Nifti2Image
        image: Nifti1Image = kind(array, header.get_best_affine(), header)
        return image

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the mask on the input's own grid: same shape, same affine, uint8.

        Raises:
            OutputExistsError: The file is there and `overwrite` is off.
            OutputError: It cannot be written.
        """
        from cascade_rt.scans.volume import write_mask

        write_mask(self.mask, self.volume, path, overwrite=overwrite)

    def save_report(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the report as JSON; raises like `save`."""
        from cascade_rt.scans.volume import refuse_scan

        refuse_scan(path, self.volume)
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"
        write_bytes(path, text.encode(errors="backslashreplace"), overwrite=overwrite)

    def to_json(self) -> dict[str, Any]:
        """The report: everything but the arrays, as plain values."""
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
    """The JSON Schema of reports, a file of the package."""
    return Path(__file__).parents[1] / "assets" / "report.schema.json"


def _axis_codes(orientation: npt.NDArray[np.float64]) -> str:
    """Where the axes of a file point to, such as RAS: right, anterior, superior."""
    return "".join(("LR", "PA", "IS")[int(axis)][int(sign > 0)] for axis, sign in orientation)


def judge(
    mask: npt.NDArray[np.uint8], found: Measurements, config: CascadeConfig, *, across_slices: bool = True
) -> Status:
    """Say in one word how far a mask can be trusted; the gravest doubt wins.

    A pancreas that is too small is implausible only where the scan does not cut it off, which would explain it.
    Tumor without any pancreas around it counts as no organ: stage 2 alone has painted it.

    Args:
        mask: `[z, row, col]`.
        found: What was measured in it.
        config: What the cascade was to find.
        across_slices: Whether the slices are neighbours; else volume, first and last slice mean nothing.
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
