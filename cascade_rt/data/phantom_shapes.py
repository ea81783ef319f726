"""Shapes of the CT phantom in patient millimetres, and how they are evaluated on a voxel grid.

Every point and axis is ordered (z, y, x) in mm: z grows toward superior, y toward posterior, x toward
patient left. A signed distance is negative inside a shape. Fields are evaluated in float32, and only
inside the box a shape can reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

Float32Array: TypeAlias = NDArray[np.float32]
Point: TypeAlias = tuple[float, float, float]
Region: TypeAlias = tuple[slice, slice, slice]

_FAR_MM = 1.0e3
_LATTICE_SIZE = 32
# Mean of the summed squared cubic B-spline weights, per axis: brings the noise back to unit variance.
_SPLINE_POWER = 151.0 / 315.0


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres of a volume.

    Attributes:
        z: [slices] mm, ascending.
        y: [rows] mm, ascending.
        x: [cols] mm, ascending.
        spacing_mm: (z, row, col).
    """

    z: Float32Array
    y: Float32Array
    x: Float32Array
    spacing_mm: tuple[float, float, float]

    def region(self, low: Float32Array, high: Float32Array) -> Region:
        """Smallest index box holding every voxel centre between two (z, y, x) corners in mm."""
        axes = (self.z, self.y, self.x)
        starts = [int(np.searchsorted(axis, value)) for axis, value in zip(axes, low, strict=True)]
        stops = [int(np.searchsorted(axis, value, "right")) for axis, value in zip(axes, high, strict=True)]
        return (slice(starts[0], stops[0]), slice(starts[1], stops[1]), slice(starts[2], stops[2]))

    def axes(self, region: Region) -> tuple[Float32Array, Float32Array, Float32Array]:
        """The three coordinate vectors of a region, in mm."""
        return self.z[region[0]], self.y[region[1]], self.x[region[2]]


@dataclass(frozen=True, eq=False)
class SmoothNoise:
    """Periodic cubic B-spline noise of unit variance, defined in patient millimetres.

    One lattice serves every use: another wavelength or offset reads another part of it.

    Attributes:
        lattice: [32, 32, 32] independent standard normal values.
    """

    lattice: Float32Array

    def on_axes(
        self, z: Float32Array, y: Float32Array, x: Float32Array, wavelength_mm: float, offset: float
    ) -> Float32Array:
        """Noise on a separable grid.

        Args:
            z: [n] mm.
            y: [m] mm.
            x: [k] mm.
            wavelength_mm: knot distance; smaller is rougher.
            offset: in knots; uses with different offsets look independent.

        Returns:
            [n, m, k] float32, mean 0, standard deviation about 1.
        """
        weights_z, weights_y, weights_x = (
            _spline_weights(axis, wavelength_mm, offset * (1.0 + 0.37 * number))
            for number, axis in enumerate((z, y, x))
        )
        along_z = np.tensordot(weights_z, self.lattice, axes=(1, 0))
        along_y = np.matmul(weights_y, along_z)
        return np.asarray(np.matmul(along_y, weights_x.T), dtype=np.float32)

    def at(self, points: Float32Array, wavelength_mm: float, offset: float) -> Float32Array:
        """Noise at single points; points is [n, 3] mm, the result [n]."""
        weights = [
            _spline_weights(points[:, number], wavelength_mm, offset * (1.0 + 0.37 * number)) for number in range(3)
        ]
        along_z = np.tensordot(weights[0], self.lattice, axes=(1, 0))
        along_y = np.matmul(weights[1][:, None, :], along_z)
        return np.asarray(np.matmul(along_y, weights[2][:, :, None])[:, 0, 0], dtype=np.float32)


def _spline_weights(axis: Float32Array, wavelength_mm: float, offset: float) -> Float32Array:
    """Periodic cubic B-spline weights of each coordinate, [n, 32]."""
    position = axis / wavelength_mm + offset
    knot = np.floor(position).astype(np.int64)
    t = position - knot
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((len(axis), _LATTICE_SIZE), dtype=np.float32)
    rows = np.arange(len(axis))
    for shift, part in enumerate(parts):
        weights[rows, (knot + shift - 1) % _LATTICE_SIZE] = part / (6.0 * _SPLINE_POWER**0.5)
    return weights


@dataclass(frozen=True, eq=False)
class Tube:
    """A swept sphere.

    Attributes:
        points: [n, 3] mm, close enough together that neighbouring spheres overlap deeply.
        radii: [n] mm.
    """

    points: Float32Array
    radii: Float32Array

    def bounds(self, margin_mm: float) -> tuple[Float32Array, Float32Array]:
        """Lowest and highest (z, y, x) corner in mm, margin included."""
        reach = (self.radii + margin_mm)[:, None]
        return (self.points - reach).min(axis=0), (self.points + reach).max(axis=0)

    def distance(self, grid: Grid, region: Region, margin_mm: float) -> Float32Array:
        """Signed distance over the region in mm, exact up to the margin and far beyond it."""
        z, y, x = grid.axes(region)
        distance = np.full((len(z), len(y), len(x)), _FAR_MM, dtype=np.float32)
        reach = self.radii + np.float32(margin_mm)
        starts = [np.searchsorted(axis, self.points[:, number] - reach) for number, axis in enumerate((z, y, x))]
        stops = [
            np.searchsorted(axis, self.points[:, number] + reach, "right") for number, axis in enumerate((z, y, x))
        ]
        corners = zip(*starts, *stops, strict=True)
        for point, radius, (z0, y0, x0, z1, y1, x1) in zip(self.points, self.radii, corners, strict=True):
            if z0 == z1 or y0 == y1 or x0 == x1:
                continue
            box = (slice(z0, z1), slice(y0, y1), slice(x0, x1))
            plane = ((z[z0:z1] - point[0]) ** 2)[:, None] + ((y[y0:y1] - point[1]) ** 2)[None, :]
            squared = plane[:, :, None] + ((x[x0:x1] - point[2]) ** 2)[None, None, :]
            np.sqrt(squared, out=squared)
            squared -= radius
            target = distance[box]
            np.minimum(target, squared, out=target)
        return distance


@dataclass(frozen=True, eq=False)
class Blob:
    """A rotated ellipsoid.

    Attributes:
        centre: [3] mm.
        semi_axes: [3] mm, along the rotated (z, y, x).
        rotation: [3, 3], its rows are the rotated axes.
    """

    centre: Float32Array
    semi_axes: Float32Array
    rotation: Float32Array

    def bounds(self, margin_mm: float) -> tuple[Float32Array, Float32Array]:
        """Lowest and highest (z, y, x) corner in mm, margin included."""
        extent = np.sqrt(((self.rotation * self.semi_axes[:, None]) ** 2).sum(axis=0)) + margin_mm
        return self.centre - extent, self.centre + extent

    def distance(self, grid: Grid, region: Region, margin_mm: float) -> Float32Array:
        """Signed distance over the region in mm, to first order; the margin is not needed here."""
        del margin_mm
        z, y, x = grid.axes(region)
        axes = (z - self.centre[0], y - self.centre[1], x - self.centre[2])
        level = np.sqrt(self._quadratic(axes, 2))
        gradient = np.sqrt(self._quadratic(axes, 4))
        gradient += np.float32(1e-6)
        level *= (level - 1) / gradient
        return level

    def _quadratic(self, axes: tuple[Float32Array, ...], power: int) -> Float32Array:
        matrix = (self.rotation.T / self.semi_axes**power) @ self.rotation
        z, y, x = axes
        plane_zy = (matrix[0, 0] * z**2)[:, None] + matrix[1, 1] * y**2 + 2 * matrix[0, 1] * np.outer(z, y)
        plane_yx = matrix[2, 2] * x**2 + 2 * matrix[1, 2] * np.outer(y, x)
        plane_zx = 2 * matrix[0, 2] * np.outer(z, x)
        total = plane_zy[:, :, None] + plane_yx[None]
        total += plane_zx[:, None, :]
        # Rounding can push the form below zero next to the centre, where the square root would be nan.
        np.maximum(total, 0, out=total)
        return np.asarray(total, dtype=np.float32)


Shape: TypeAlias = Tube | Blob


def curve_tube(control: Sequence[Point], radii: Sequence[float], step_mm: float = 2.5) -> Tube:
    """Smooth tube through control points, resampled to even steps."""
    points = np.asarray(control, dtype=np.float64)
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    count = max(int(chord[-1] / step_mm), 2)
    position = np.linspace(0.0, chord[-1], count)
    path = PchipInterpolator(chord, points, axis=0)(position)
    radius = PchipInterpolator(chord, np.asarray(radii, dtype=np.float64))(position)
    return Tube(np.asarray(path, dtype=np.float32), np.asarray(radius, dtype=np.float32))


def ellipsoid(centre: Point, semi_axes: Point, turn_deg: Point = (0.0, 0.0, 0.0)) -> Blob:
    """Ellipsoid turned about its z, y and x axes, in degrees."""
    rotation = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    as_float = [np.asarray(values, dtype=np.float32) for values in (centre, semi_axes, rotation)]
    return Blob(*as_float)


@dataclass(frozen=True, eq=False)
class Solid:
    """One organ or part: a union of shapes, and what it is made of.

    Attributes:
        shapes: united; the first is painted together with all others.
        hu: attenuation of the solid, or of its wall where it has an inside.
        halo_mm: thickness of the fat kept free around it.
        rough_mm: amplitude of the outline's irregularity.
        rough_wavelength_mm: length scale of that irregularity.
        wall_mm: wall thickness of a hollow solid; not used without inner_hu.
        inner_hu: attenuation inside the wall; None makes it solid.
        gas_above_y: inside the wall, gas fills what is anterior of this y in mm; None for no gas.
        mottle_hu: amplitude of the texture inside.
        mottle_wavelength_mm: length scale of that texture.
        cavity_margin_mm: keeps the solid this far inside the cavity's wall, or outside it if negative; None: no limit.
        below_diaphragm: whether that limit includes the diaphragm.
        edge_mm: extra softness of the outline beyond one pixel.
    """

    shapes: tuple[Shape, ...]
    hu: float
    halo_mm: float = 0.0
    rough_mm: float = 0.0
    rough_wavelength_mm: float = 20.0
    wall_mm: float = 3.0
    inner_hu: float | None = None
    gas_above_y: float | None = None
    mottle_hu: float = 0.0
    mottle_wavelength_mm: float = 8.0
    cavity_margin_mm: float | None = None
    below_diaphragm: bool = True
    edge_mm: float = 0.0

    def margin_mm(self, grid: Grid) -> float:
        """How far outside its nominal surface the solid can still change a voxel, in mm."""
        return self.halo_mm + 3.0 * self.rough_mm + self.edge_mm + 2.0 * grid.spacing_mm[2]

    def region(self, grid: Grid) -> Region:
        """The index box the solid can reach."""
        corners = [shape.bounds(self.margin_mm(grid)) for shape in self.shapes]
        low = np.min([corner[0] for corner in corners], axis=0)
        high = np.max([corner[1] for corner in corners], axis=0)
        return grid.region(low, high)

    def distance(self, grid: Grid, region: Region, noise: SmoothNoise, offset: float) -> Float32Array:
        """Signed distance of the irregular outline over the region, in mm."""
        margin = self.margin_mm(grid)
        distance = self.shapes[0].distance(grid, region, margin)
        for shape in self.shapes[1:]:
            np.minimum(distance, shape.distance(grid, region, margin), out=distance)
        if self.rough_mm > 0:
            rough = noise.on_axes(*grid.axes(region), self.rough_wavelength_mm, offset)
            rough *= np.float32(self.rough_mm)
            distance += rough
        return distance
