"""Seeded abdominal CT phantoms with pancreas and tumor labels.

A phantom is drawn as shapes in patient millimetres (`phantom_anatomy`). Here it is painted back to front with
anti-aliased outlines, blurred by a point spread function and given correlated noise. The same seed gives the same
patient at every image size. Phantoms are a research stand-in only and contain no patient data.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.data.phantom_anatomy import Anatomy, draw_anatomy
from cascade_rt.data.phantom_frame import FAT_HU
from cascade_rt.data.phantom_shapes import Blob, Float32Array, Grid, Region, SmoothNoise, Solid

_AIR_HU = -1000.0
_GAS_HU = -920.0
_LUNG_HU = -840.0
_SKIN_HU = 15.0
_MUSCLE_HU = 55.0
_VISCERAL_FAT_HU = -92.0
_SKIN_MM = 1.8
_REFERENCE_SLICES = 96
_LARGEST_SLICE_MM = 8.0


@dataclass(frozen=True, eq=False)
class Phantom:
    """One synthetic abdominal CT.

    Axes are canonical: z grows toward superior, row toward posterior, col toward patient left.

    Attributes:
        hu: [z, row, col], Hounsfield units.
        label: [z, row, col], 0 background, 1 pancreas, 2 tumor.
        spacing_mm: (z, row, col).
        seed: the seed it was made from.
    """

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    seed: int

    @property
    def has_tumor(self) -> bool:
        """Whether any voxel is labelled tumor."""
        return bool((self.label == TUMOR_LABEL).any())


def make_phantom(seed: int, shape: tuple[int, int, int] = (96, 512, 512), *, tumor: bool | None = None) -> Phantom:
    """Generate the phantom of a seed.

    Args:
        seed: not negative. The same seed gives the same patient at every shape.
        shape: (slices, rows, cols). The field of view depends on the patient only, so fewer pixels are coarser. Fewer
            slices are thicker, up to 8 mm.
        tumor: whether to add a tumor, or None to let the seed decide. The anatomy does not depend on it.

    Returns:
        The phantom. Equal arguments give equal arrays.

    Raises:
        ValueError: if the seed is negative or a dimension is not positive.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed!r}")
    if min(shape) < 1:
        raise ValueError(f"shape must be three positive sizes, got {shape!r}")
    anatomy_seed, tumor_seed, noise_seed = np.random.SeedSequence(seed).spawn(3)
    anatomy = draw_anatomy(anatomy_seed, tumor_seed)
    grid = _grid(anatomy, shape)
    hu = np.empty(shape, dtype=np.float32)
    _paint_body(hu, grid, anatomy)
    for number, solid in enumerate(anatomy.solids):
        _paint_solid(hu, grid, anatomy, solid, 1.0 + 1.7 * number)
    label = np.zeros(shape, dtype=np.uint8)
    _paint_pancreas(hu, label, grid, anatomy)
    if anatomy.tumor_present if tumor is None else tumor:
        _paint_tumor(hu, label, grid, anatomy)
    image = _image(hu, anatomy, np.random.default_rng(noise_seed))
    return Phantom(hu=image, label=label, spacing_mm=grid.spacing_mm, seed=seed)


def _grid(anatomy: Anatomy, shape: tuple[int, int, int]) -> Grid:
    """Return the voxel centres: the patient's field of view in plane, and a window around the pancreas along z."""
    slice_mm = anatomy.slice_mm * (_REFERENCE_SLICES / shape[0]) ** 0.65
    slice_mm = min(max(slice_mm, 1.0), _LARGEST_SLICE_MM)
    spacing = (slice_mm, anatomy.field_of_view_mm / shape[1], anatomy.field_of_view_mm / shape[2])
    centre = list(anatomy.centre_mm)
    # Limit the shift of a short volume, so that the tumor location stays well inside.
    room = 0.35 * slice_mm * (shape[0] - 1)
    tumor_z = float(anatomy.tumor.blob.centre[0])
    centre[0] = min(max(centre[0] * min(1.0, shape[0] / _REFERENCE_SLICES), tumor_z - room), tumor_z + room)
    z, y, x = (
        np.asarray(middle + (np.arange(size) - 0.5 * (size - 1)) * step, dtype=np.float32)
        for middle, size, step in zip(centre, shape, spacing, strict=True)
    )
    return Grid(z=z, y=y, x=x, spacing_mm=spacing)


def _coverage(distance: Float32Array, edge_mm: float) -> Float32Array:
    """Compute the fraction of each voxel inside a surface: a ramp of width `edge_mm` centred at distance 0."""
    share = distance * np.float32(-1.0 / edge_mm)
    share += np.float32(0.5)
    np.clip(share, 0.0, 1.0, out=share)
    return share


def _blend(target: Float32Array, share: Float32Array, value: float | Float32Array) -> None:
    """Blend a value into the target in place, weighted by the share of each voxel."""
    difference = (np.float32(value) if isinstance(value, float) else value) - target
    difference *= share
    target += difference


def _paint_body(hu: Float32Array, grid: Grid, anatomy: Anatomy) -> None:
    """Paint air, couch, skin, subcutaneous fat, muscle wall, visceral fat and lungs."""
    body, pixel = anatomy.body, grid.spacing_mm[2]
    column, row = grid.y[:, None], grid.x[None, :]
    outline, fat, muscle = body.outline_depth(column, row), body.fat_depth(column, row), body.muscle_depth(column, row)
    layered = 0.75 * body.muscle_layer(column, row)
    dome, background = body.dome_height(column, row), _background(grid, anatomy)
    for index in range(len(grid.z)):
        rough, fat_rough = body.irregularity(grid.z[index : index + 1], grid.y, grid.x)
        depth = outline + rough[0]
        muscle_depth = depth - fat - fat_rough[0]
        target = hu[index]
        target[:] = background
        _blend(target, _coverage(-depth, pixel), _SKIN_HU)
        _blend(target, _coverage(_SKIN_MM - depth, pixel), FAT_HU)
        _blend(target, _coverage(-muscle_depth, pixel), _MUSCLE_HU)
        for layer in (0.36, 0.68):
            gap = _coverage(np.abs(muscle_depth - layer * muscle) - np.float32(0.4), pixel)
            _blend(target, gap * layered, FAT_HU)
        cavity = _coverage(muscle - muscle_depth, pixel)
        _blend(target, cavity, _visceral_fat(grid, anatomy, index))
        if grid.z[index] > dome.min():
            _blend(target, cavity * _coverage(dome - grid.z[index], 4.0), _LUNG_HU)


def _visceral_fat(grid: Grid, anatomy: Anatomy, index: int) -> Float32Array:
    """Return one slice of fat with faint strands and haze, [row, col]."""
    level = grid.z[index : index + 1]
    strands: Float32Array = anatomy.noise.on_axes(level, grid.y, grid.x, 7.0, 21.0)[0]
    strands -= np.float32(1.1)
    np.maximum(strands, 0.0, out=strands)
    strands *= np.float32(32.0)
    strands += anatomy.noise.on_axes(level, grid.y, grid.x, 30.0, 17.0)[0] * np.float32(5.0)
    strands += np.float32(_VISCERAL_FAT_HU)
    return strands


def _background(grid: Grid, anatomy: Anatomy) -> Float32Array:
    """Return one slice of air, with the couch if the patient has one, [row, col]."""
    background = np.full((len(grid.y), len(grid.x)), _AIR_HU, dtype=np.float32)
    if anatomy.couch_gap_mm is None:
        return background
    surface = anatomy.body.half_depth_mm + anatomy.couch_gap_mm - (grid.x / 95.0) ** 2 * 6.0
    below = grid.y[:, None] - surface[None, :].astype(np.float32)
    sideways = _coverage(np.abs(grid.x) - np.float32(200.0), grid.spacing_mm[2])[None, :]
    _blend(background, _coverage(np.abs(below - 14) - 14, 2.0) * sideways, -930.0)
    _blend(background, _coverage(np.abs(below - 1) - 1, 2.0) * sideways, -250.0)
    return background


def _paint_solid(hu: Float32Array, grid: Grid, anatomy: Anatomy, solid: Solid, offset: float) -> None:
    region = solid.region(grid)
    target = hu[region]
    if target.size == 0:
        return
    distance = solid.distance(grid, region, anatomy.noise, offset)
    if solid.cavity_margin_mm is not None:
        limit = anatomy.body.cavity_distance(grid, region, solid.below_diaphragm)
        limit += np.float32(solid.cavity_margin_mm)
        np.maximum(distance, limit, out=distance)
    edge = grid.spacing_mm[2] + solid.edge_mm
    if solid.halo_mm > 0:
        # The halo vanishes where the noise is low, so that neighbouring organs touch as they do in patients.
        halo = anatomy.noise.on_axes(*grid.axes(region), 16.0, offset + 4.1)
        halo *= np.float32(-0.9 * solid.halo_mm)
        halo += distance
        halo -= np.float32(solid.halo_mm)
        _blend(target, _coverage(halo, edge), _VISCERAL_FAT_HU)
    texture = _texture(solid, grid, region, anatomy.noise, offset)
    share = _coverage(distance, edge)
    if solid.inner_hu is None:
        _blend(target, share, texture + solid.hu)
        return
    _blend(target, share, solid.hu)
    distance += np.float32(solid.wall_mm)
    inner = _coverage(distance, edge)
    _blend(target, inner, texture + solid.inner_hu)
    if solid.gas_above_y is not None:
        above = _coverage(grid.y[region[1]] - np.float32(solid.gas_above_y), 1.5 * edge)
        _blend(target, inner * above[None, :, None], _GAS_HU)


def _texture(solid: Solid, grid: Grid, region: Region, noise: SmoothNoise, offset: float) -> float | Float32Array:
    """Return the texture that is added to the solid's attenuation over the region, in HU."""
    if solid.mottle_hu <= 0:
        return 0.0
    texture = noise.on_axes(*grid.axes(region), solid.mottle_wavelength_mm, offset + 7.3)
    texture *= np.float32(solid.mottle_hu)
    return texture


def _paint_pancreas(hu: Float32Array, label: NDArray[np.uint8], grid: Grid, anatomy: Anatomy) -> None:
    pancreas = anatomy.pancreas
    _paint_solid(hu, grid, anatomy, pancreas, 0.0)
    region = pancreas.region(grid)
    label[region][pancreas.distance(grid, region, anatomy.noise, 0.0) < 0] = ORGAN_LABEL


def _paint_tumor(hu: Float32Array, label: NDArray[np.uint8], grid: Grid, anatomy: Anatomy) -> None:
    tumor = anatomy.tumor
    # A tumor smaller than 1.5 voxels could fall between the voxel centres of a coarse grid.
    scale = max(1.0, 0.75 * max(grid.spacing_mm) / float(tumor.blob.semi_axes.min()))
    blob = Blob(tumor.blob.centre, tumor.blob.semi_axes * np.float32(scale), tumor.blob.rotation)
    solid = Solid(
        (blob,),
        hu=anatomy.pancreas.hu - tumor.contrast_hu,
        rough_mm=tumor.rough_mm,
        rough_wavelength_mm=max(3.0, 0.7 * float(blob.semi_axes.mean())),
        edge_mm=tumor.edge_mm,
        mottle_hu=4.0,
        mottle_wavelength_mm=5.0,
    )
    _paint_solid(hu, grid, anatomy, solid, 2.9)
    region = solid.region(grid)
    label[region][solid.distance(grid, region, anatomy.noise, 2.9) < 0] = TUMOR_LABEL


def _image(hu: Float32Array, anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.int16]:
    """Simulate the scanner: slice blur, point spread and correlated noise. Rounds to whole HU."""
    image = np.empty(hu.shape, dtype=np.int16)
    last = len(hu) - 1
    previous_noise = _grain(hu.shape[1:], rng)
    for index in range(len(hu)):
        blurred = 0.8 * hu[index] + 0.1 * hu[max(index - 1, 0)] + 0.1 * hu[min(index + 1, last)]
        blurred = _smooth(blurred, 0.18)
        noise = _grain(hu.shape[1:], rng)
        # 0.96**2 + 0.28**2 = 1, so that neighbouring slices share some noise at an unchanged level.
        blurred += np.float32(anatomy.noise_hu) * (np.float32(0.96) * noise + np.float32(0.28) * previous_noise)
        previous_noise = noise
        image[index] = np.rint(np.clip(blurred, -1024, 3071))
    return image


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Draw correlated noise of unit variance for one slice."""
    white = rng.standard_normal(shape, dtype=np.float32)
    # The kernel (1/4, 1/2, 1/4) keeps 3/8 of the variance along each axis.
    return np.asarray(_smooth(white, 0.25) * np.float32(8 / 3), dtype=np.float32)


def _smooth(plane: Float32Array, side: float) -> Float32Array:
    """Smooth a plane along both axes with the kernel (side, 1 - 2 side, side), replicating the border pixels."""
    across = plane * np.float32(1 - 2 * side)
    across[:, 1:] += np.float32(side) * plane[:, :-1]
    across[:, :-1] += np.float32(side) * plane[:, 1:]
    across[:, 0] += np.float32(side) * plane[:, 0]
    across[:, -1] += np.float32(side) * plane[:, -1]
    result = across * np.float32(1 - 2 * side)
    result[1:] += np.float32(side) * across[:-1]
    result[:-1] += np.float32(side) * across[1:]
    result[0] += np.float32(side) * across[0]
    result[-1] += np.float32(side) * across[-1]
    return result
