"""Synthetic tumors in the healthy pancreas of real scans, for training without labelled tumors.

A tumor is drawn in millimetres as one or more ellipsoids, deformed by smooth noise. Surrounding tissue is pushed away.
The tumor gets the mean HU of the gland, made darker, left equal or made brighter, and the noise of the scan. Between
the tumor and the tail, the duct may be widened and the gland thinned. The same code handles slices (`[1, row, col]`)
and volumes.

The idea is from Hu et al. 2023 (arXiv 2303.14869) and Li et al. 2023 (arXiv 2308.03008). Lai et al. 2024
(arXiv 2407.19284) study which parts matter. The parameters are in `cascade_rt.config.tumor_recipe`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    distance_transform_edt,
    find_objects,
    gaussian_filter,
    gaussian_filter1d,
    map_coordinates,
    zoom,
)

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.config.tumor_recipe import TumorRecipe

Hu = npt.NDArray[np.int16]
Label = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]

LEAST_GLAND_MM2 = 60.0
"""Slices with less gland than this get no tumor, because it would not fit."""
LEAST_TUMOR_MM2 = 12.0
"""Tumors whose largest cross-section is smaller than this are discarded."""
_HEAD_END = 0.35
_VESSEL_HU = 45.0
_DUCT_HU = 12.0
_LEAST_HU = 20.0
_FAR = 1.9
_RING_MM = 8.0


@dataclass(frozen=True, slots=True)
class _Gland:
    """Measurements of a healthy gland."""

    mean_hu: float
    noise_hu: float
    noise_voxels: float
    """Standard deviation in voxels of the blur that gives white noise the grain of the scan."""


def add_tumor(
    hu: Hu, label: Label, spacing_mm: Spacing, recipe: TumorRecipe, random: np.random.Generator
) -> tuple[Hu, Label] | None:
    """Put one tumor into a healthy pancreas.

    Args:
        hu: `[z, row, col]`, HU. One slice or several adjacent ones, with columns from the patient's right to left.
        label: `[z, row, col]`: 1 pancreas.
        spacing_mm: Spacing of slices, rows and columns in mm.
        recipe: Appearance of the tumors.
        random: Source of the tumor. Equal states give equal tumors.

    Returns:
        New arrays of the same shapes and dtypes, with tumor labelled 2, or None if the gland or the drawn tumor is too
        small.
    """
    organ = label == ORGAN_LABEL
    areas = organ.sum(axis=(1, 2)) * spacing_mm[1] * spacing_mm[2]
    if not areas.size or areas.max() < LEAST_GLAND_MM2:
        return None
    center = _choose_center(organ, spacing_mm, recipe, random)
    radius_mm = _draw_radius(recipe, random, in_slice=len(hu) == 1)
    near = _near_gland(organ, center, radius_mm * _FAR, spacing_mm)
    changed, new_label = hu.copy(), label.copy()
    moved = tuple(middle - side.start for middle, side in zip(center, near, strict=True))
    grown = _grow(hu[near], label[near], moved, radius_mm, spacing_mm, recipe, random)
    if grown is None:
        return None
    limits = np.iinfo(np.int16)
    # Scans clipped from below, such as those stored as pictures, stay clipped.
    changed[near] = np.clip(np.rint(grown[0]), max(limits.min, int(hu.min())), limits.max)
    new_label[near] = grown[1]
    return changed, new_label


def _grow(
    hu: Hu,
    label: Label,
    center: tuple[int, ...],
    radius_mm: float,
    spacing_mm: Spacing,
    recipe: TumorRecipe,
    random: np.random.Generator,
) -> tuple[Field, Label] | None:
    """Grow one tumor in the part of a scan around the gland. Return None if it is too small to be kept."""
    gland = _measure(hu, label == ORGAN_LABEL, spacing_mm)
    painted, new_label = hu.astype(np.float32), label.copy()
    box = _box_around(center, radius_mm * _FAR, spacing_mm, label.shape)
    depth = np.full(label.shape, -1.0, dtype=np.float32)
    depth[box] = _depth_mm(box, center, radius_mm, spacing_mm, recipe, random)
    _shrink_upstream(painted, new_label, center, gland, spacing_mm, recipe, random)
    push = random.uniform(*recipe.push)
    _push_away(painted[box], new_label[box], _offsets_mm(box, center, spacing_mm), radius_mm, push, spacing_mm)
    overhang_mm = radius_mm * random.uniform(*recipe.overhang)
    depth = np.minimum(depth, _room_mm(painted, new_label == ORGAN_LABEL, gland, overhang_mm, spacing_mm))
    tumor = depth > 0
    if tumor.sum(axis=(1, 2)).max() * spacing_mm[1] * spacing_mm[2] < LEAST_TUMOR_MM2:
        return None
    _paint(painted, depth, gland, radius_mm, spacing_mm, recipe, random)
    new_label[tumor] = TUMOR_LABEL
    return painted, new_label


def _near_gland(
    organ: Region, center: tuple[int, int, int], reach_mm: float, spacing_mm: Spacing
) -> tuple[slice, slice, slice]:
    """Return the part of a scan that a tumor and its side effects can change, plus the tissue measured for them."""
    sides = []
    for axis, (step, length) in enumerate(zip(spacing_mm, organ.shape, strict=True)):
        present = np.flatnonzero(organ.any(axis=tuple(other for other in range(3) if other != axis)))
        low = min(present[0] - _RING_MM / step, center[axis] - reach_mm / step)
        high = max(present[-1] + _RING_MM / step, center[axis] + reach_mm / step)
        sides.append(slice(max(0, int(low)), min(length, int(high) + 2)))
    return sides[0], sides[1], sides[2]


def _measure(hu: Hu, organ: Region, spacing_mm: Spacing) -> _Gland:
    """Measure brightness and noise of the gland in the slice with the largest gland area."""
    fullest = int(np.argmax(organ.sum(axis=(1, 2))))
    image, inside = hu[fullest].astype(np.float32), organ[fullest]
    inner = distance_transform_edt(inside, spacing_mm[1:]) > 1.5
    core = inner if np.count_nonzero(inner) > 30 else inside
    rest = image - gaussian_filter(image, 2.0)
    noise = max(1.0, float(rest[core].std()))
    neighbours = core[:, 1:] & core[:, :-1]
    grain = float(np.mean(rest[:, 1:][neighbours] * rest[:, :-1][neighbours])) / noise**2 if neighbours.any() else 0.0
    # White noise blurred by a Gaussian of standard deviation s has correlation exp(-1 / (4 s^2)) at a lag of one voxel.
    blur = 0.0 if grain < 0.05 else float(np.sqrt(-1 / (4 * np.log(min(grain, 0.9)))))
    return _Gland(float(np.median(image[core])), noise, blur)


def _choose_center(
    organ: Region, spacing_mm: Spacing, recipe: TumorRecipe, random: np.random.Generator
) -> tuple[int, int, int]:
    """Choose a voxel deep in the gland, in its right third (the head) with probability `recipe.head_share`."""
    voxels = np.argwhere(organ)
    place = random.uniform(0, _HEAD_END) if random.random() < recipe.head_share else random.uniform(_HEAD_END, 1)
    columns = voxels[:, 2]
    wanted = np.quantile(columns, place)
    near = voxels[np.abs(columns - wanted) * spacing_mm[2] <= 4.0]
    depths = _in_plane_depth(organ, spacing_mm)[tuple(near.T)]
    chosen = near[random.choice(len(near), p=depths**2 / np.sum(depths**2))]
    return int(chosen[0]), int(chosen[1]), int(chosen[2])


def _in_plane_depth(organ: Region, spacing_mm: Spacing) -> Field:
    """Compute the distance in mm from each voxel of the gland to its edge, slice by slice."""
    depth = np.zeros(organ.shape, dtype=np.float32)
    for index in np.flatnonzero(organ.any(axis=(1, 2))):
        # A box with a margin of one voxel suffices to find the edge of the gland.
        ((rows, cols),) = find_objects(organ[index].astype(np.uint8))
        box = (slice(max(0, rows.start - 1), rows.stop + 1), slice(max(0, cols.start - 1), cols.stop + 1))
        depth[index][box] = distance_transform_edt(organ[index][box], spacing_mm[1:])
    return depth


def _draw_radius(recipe: TumorRecipe, random: np.random.Generator, *, in_slice: bool) -> float:
    """Draw the radius in mm. For a single slice, return the radius of a random cross-section of the ball."""
    radius = recipe.median_diameter_mm / 2 * float(np.exp(random.normal(0, recipe.diameter_spread)))
    return radius * float(np.sqrt(1 - random.uniform(0, 0.9) ** 2)) if in_slice else radius


def _box_around(
    center: tuple[int, ...], reach_mm: float, spacing_mm: Spacing, shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    sides = [
        slice(max(0, middle - round(reach_mm / step)), min(length, middle + round(reach_mm / step) + 1))
        for middle, step, length in zip(center, spacing_mm, shape, strict=True)
    ]
    return sides[0], sides[1], sides[2]


def _offsets_mm(
    box: tuple[slice, slice, slice], center: tuple[int, ...], spacing_mm: Spacing
) -> tuple[Field, Field, Field]:
    """Return the offsets from the centre in mm, broadcastable to the box."""
    axes = [
        (np.arange(side.start, side.stop, dtype=np.float32) - np.float32(middle)) * np.float32(step)
        for side, middle, step in zip(box, center, spacing_mm, strict=True)
    ]
    z, row, col = np.meshgrid(*axes, indexing="ij", sparse=True)
    return z, row, col


def _depth_mm(
    box: tuple[slice, slice, slice],
    center: tuple[int, ...],
    radius_mm: float,
    spacing_mm: Spacing,
    recipe: TumorRecipe,
    random: np.random.Generator,
) -> Field:
    """Compute the approximate depth of each voxel of a box inside the tumor, in mm. Negative outside."""
    z, row, col = _offsets_mm(box, center, spacing_mm)
    lobes = int(random.integers(2, 4)) if random.random() < recipe.lobed_share else 1
    depths = []
    for lobe in range(lobes):
        scale = 1.0 if lobe == 0 else random.uniform(0.5, 0.8)
        away = np.zeros(3) if lobe == 0 else random.normal(0, 0.45, 3) * radius_mm
        angle, stretch = random.uniform(0, np.pi), random.uniform(0.75, 1.3)
        turned_row = np.cos(angle) * (row - away[1]) + np.sin(angle) * (col - away[2])
        turned_col = np.cos(angle) * (col - away[2]) - np.sin(angle) * (row - away[1])
        distance = np.sqrt((z - away[0]) ** 2 + (turned_row / stretch) ** 2 + (turned_col * stretch) ** 2)
        depths.append(scale * radius_mm - distance)
    depth = np.max(depths, axis=0).astype(np.float32)
    bumps = _smooth_noise(depth.shape, spacing_mm, max(3.0, 0.7 * radius_mm), random)
    bumpy: Field = depth + bumps * np.float32(0.16 * radius_mm)
    return bumpy


def _smooth_noise(
    shape: tuple[int, ...], spacing_mm: Spacing, wavelength_mm: float, random: np.random.Generator
) -> Field:
    """Draw smooth noise with mean 0, standard deviation near 1 and the given wavelength."""
    coarse = [
        max(2, int(np.ceil(length * step / wavelength_mm)) + 2) for length, step in zip(shape, spacing_mm, strict=True)
    ]
    coarse = [1 if length == 1 else count for length, count in zip(shape, coarse, strict=True)]
    grid = random.standard_normal(coarse).astype(np.float32)
    factors = [length / count for length, count in zip(shape, coarse, strict=True)]
    fine = zoom(grid, factors, order=3, mode="nearest", grid_mode=True)
    noise: Field = fine[tuple(slice(0, length) for length in shape)].astype(np.float32)
    return noise


def _room_mm(hu: Field, organ: Region, gland: _Gland, overhang_mm: float, spacing_mm: Spacing) -> Field:
    """Compute the depth in mm of each voxel inside the allowed region: the gland and a rim, but no vessel or bone."""
    smooth = gaussian_filter(hu, (0, 1, 1))
    forbidden = (smooth > gland.mean_hu + _VESSEL_HU) & ~organ
    room = np.empty(hu.shape, dtype=np.float32)
    for index in range(len(hu)):
        to_gland = distance_transform_edt(~organ[index], spacing_mm[1:]) if organ[index].any() else np.inf
        to_vessel = distance_transform_edt(~forbidden[index], spacing_mm[1:]) if forbidden[index].any() else np.inf
        room[index] = np.minimum(overhang_mm + 1e-3 - to_gland, to_vessel - 1e-3)
    # Inside the gland the rim is not a limit. The tumor is bounded there by its shape.
    limit: Field = np.where(organ, np.maximum(room, np.float32(overhang_mm + 3.0)), room)
    return limit


def _push_away(
    hu: Field,
    label: Label,
    offsets_mm: tuple[Field, Field, Field],
    radius_mm: float,
    push: float,
    spacing_mm: Spacing,
) -> None:
    """Push tissue outward from the centre in each slice, in place. The push fades out at `_FAR` times the radius."""
    if push <= 0:
        return
    z, row, col = offsets_mm
    distance = np.sqrt(z**2 + row**2 + col**2)
    fade = np.clip(1 - distance / (_FAR * radius_mm), 0, 1)
    # Maps a position in the result back to the position its tissue came from. Monotone in the distance.
    source = 1 - push * fade
    grid = np.indices(hu.shape[1:], dtype=np.float32)
    for index in range(len(hu)):
        back = (1 - source[index]) * np.ones_like(hu[index])
        rows = grid[0] - back * row[0] / spacing_mm[1]
        cols = grid[1] - back * col[0] / spacing_mm[2]
        hu[index] = map_coordinates(hu[index], (rows, cols), order=1, mode="nearest")
        label[index] = map_coordinates(label[index], (rows, cols), order=0, mode="nearest")


def _shrink_upstream(
    hu: Field,
    label: Label,
    center: tuple[int, ...],
    gland: _Gland,
    spacing_mm: Spacing,
    recipe: TumorRecipe,
    random: np.random.Generator,
) -> None:
    """Thin the gland between the tumor and the tail and widen its duct, in place."""
    atrophy_mm = random.uniform(*recipe.atrophy_mm) if random.random() < recipe.atrophy_share else 0.0
    duct_mm = random.uniform(*recipe.duct_mm) if random.random() < recipe.duct_share else 0.0
    if not atrophy_mm and not duct_mm:
        return
    upstream = np.arange(label.shape[2]) > center[2]
    for index in np.flatnonzero((label == ORGAN_LABEL).any(axis=(1, 2))):
        organ = label[index] == ORGAN_LABEL
        depth, nearest = distance_transform_edt(organ, spacing_mm[1:], return_indices=True)
        thickest = float(depth[:, upstream].max(initial=0.0))
        lost_mm = min(atrophy_mm, 0.5 * thickest)
        lost = organ & upstream & (depth <= lost_mm)
        if lost_mm > 0:
            # Tissue beside the gland, such as fat or bowel, replaces what it has lost.
            around = _smooth_outside(hu[index], organ)[tuple(nearest)] + _grain(hu[index].shape, gland, random)
            soft = np.clip((lost_mm - depth) / 0.8 + 0.5, 0, 1) * (organ & upstream)
            hu[index] = hu[index] * (1 - soft) + around * soft
            label[index][lost] = 0
        if duct_mm:
            width = min(duct_mm, 1.2 * (thickest - lost_mm))
            _draw_duct(hu[index], organ & ~lost & upstream, depth, width, gland, spacing_mm, random)


def _smooth_outside(hu: Field, organ: Region) -> Field:
    """Blur a slice `[row, col]`, ignoring the gland."""
    outside = (~organ).astype(np.float32)
    weight = gaussian_filter(outside, 1.5)
    smooth: Field = gaussian_filter(hu * outside, 1.5) / np.maximum(weight, np.float32(1e-3))
    return smooth


def _draw_duct(
    hu: Field,
    gland_part: Region,
    depth: npt.NDArray[np.float64],
    width_mm: float,
    gland: _Gland,
    spacing_mm: Spacing,
    random: np.random.Generator,
) -> None:
    """Draw the duct in place, along the deepest voxel in each column of a part of the gland."""
    columns = np.flatnonzero(gland_part.any(axis=0))
    if len(columns) * spacing_mm[2] < 2 * width_mm or width_mm < 1.5:
        return
    rows = np.argmax(np.where(gland_part, depth, -1.0), axis=0)[columns].astype(np.float64)
    rows = gaussian_filter1d(rows, 3.0 / spacing_mm[2], mode="nearest")
    middle = np.zeros(hu.shape, dtype=bool)
    for column, row, following in zip(columns, rows, [*rows[1:], rows[-1]], strict=True):
        low, high = sorted((round(row), round(following)))
        middle[low : high + 1, column] = True
    distance = distance_transform_edt(~middle, spacing_mm[1:])
    share = np.clip((width_mm / 2 - distance) / 0.8 + 0.5, 0, 1) * gland_part
    hu[:] = hu * (1 - share) + (_DUCT_HU + _grain(hu.shape, gland, random)) * share


def _paint(
    hu: Field,
    depth: Field,
    gland: _Gland,
    radius_mm: float,
    spacing_mm: Spacing,
    recipe: TumorRecipe,
    random: np.random.Generator,
) -> None:
    """Paint a tumor with its brightness, mottle, noise and edge, in place."""
    kind = random.random()
    if kind < recipe.equal_share:
        contrast = random.uniform(*recipe.equal_hu)
    elif kind < recipe.equal_share + recipe.brighter_share:
        contrast = random.uniform(*recipe.brighter_hu)
    else:
        contrast = -random.uniform(*recipe.darker_hu)
    edge_mm = random.uniform(*recipe.edge_mm)
    mottle = _smooth_noise(depth.shape, spacing_mm, max(2.5, 0.4 * radius_mm), random) * random.uniform(
        *recipe.mottle_hu
    )
    inside: Field = np.maximum(gland.mean_hu + contrast, _LEAST_HU) + mottle
    if random.random() < recipe.necrosis_share:
        core = np.clip(depth / max(radius_mm, 1e-3) - 0.35, 0, 0.5) * 2
        inside = inside - core * random.uniform(10, 35)
    share = np.clip(depth / edge_mm + 0.5, 0, 1)
    noise = np.stack([_grain(image.shape, gland, random) for image in hu])
    hu[:] = hu * (1 - share) + (inside + noise) * share


def _grain(shape: tuple[int, ...], gland: _Gland, random: np.random.Generator) -> Field:
    """Draw noise `[row, col]` with the strength and grain of the scan's noise."""
    noise = random.standard_normal(shape).astype(np.float32)
    if gland.noise_voxels:
        noise = gaussian_filter(noise, gland.noise_voxels)
        noise /= noise.std()
    grain: Field = noise * np.float32(gland.noise_hu)
    return grain
