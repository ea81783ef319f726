"""Shapes of the CT phantom in patient millimetres, and their evaluation on a voxel grid.

Every point and axis is ordered (z, y, x) in mm: z grows toward superior, y toward posterior, x toward
patient left. A signed distance is negative inside a shape. Fields are evaluated in float32, and only
inside the box that a shape can reach.
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
# Mean of the summed squared cubic B-spline weights, per axis. Restores the noise to unit variance.
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
        """Return the smallest index box that holds every voxel centre between two (z, y, x) corners in mm."""
        axes = (self.z, self.y, self.x)
        starts = [int(np.searchsorted(axis, value)) for axis, value in zip(axes, low, strict=True)]
        stops = [int(np.searchsorted(axis, value, "right")) for axis, value in zip(axes, high, strict=True)]
        return (slice(starts[0], stops[0]), slice(starts[1], stops[1]), slice(starts[2], stops[2]))

    def axes(self, region: Region) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Return the three coordinate vectors of a region, in mm."""
        return self.z[region[0]], self.y[region[1]], self.x[region[2]]


@dataclass(frozen=True, eq=False)
class SmoothNoise:
    """Periodic cubic B-spline noise of unit variance, defined in patient millimetres.

    One lattice serves all uses. Each wavelength and offset samples a different part of it.

    Attributes:
        lattice: [32, 32, 32] independent standard normal values.
    """

    lattice: Float32Array

    def on_axes(
        self, z: Float32Array, y: Float32Array, x: Float32Array, wavelength_mm: float, offset: float
    ) -> Float32Array:
        """Evaluate the noise on a separable grid.

        Args:
            z: [n] mm.
            y: [m] mm.
            x: [k] mm.
            wavelength_mm: knot distance. Smaller is rougher.
            offset: in knots. Uses with different offsets look independent.

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
        """Evaluate the noise at points of [n, 3] mm, giving [n]."""
        weights = [
            _spline_weights(points[:, number], wavelength_mm, offset * (1.0 + 0.37 * number)) for number in range(3)
        ]
        along_z = np.tensordot(weights[0], self.lattice, axes=(1, 0))
        along_y = np.matmul(weights[1][:, None, :], along_z)
        return np.asarray(np.matmul(along_y, weights[2][:, :, None])[:, 0, 0], dtype=np.float32)


def _spline_weights(axis: Float32Array, wavelength_mm: float, offset: float) -> Float32Array:
    """Compute the periodic cubic B-spline weights of each coordinate, [n, 32]."""
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
        """Return the lowest and highest (z, y, x) corner in mm, including the margin."""
        reach = (self.radii + margin_mm)[:, None]
        return (self.points - reach).min(axis=0), (self.points + reach).max(axis=0)

    def distance(self, grid: Grid, region: Region, margin_mm: float) -> Float32Array:
        """Return the signed distance over the region in mm: exact up to the margin and large beyond it."""
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
        rotation: [3, 3], whose rows are the rotated axes.
    """

    centre: Float32Array
    semi_axes: Float32Array
    rotation: Float32Array

    def bounds(self, margin_mm: float) -> tuple[Float32Array, Float32Array]:
        """Return the lowest and highest (z, y, x) corner in mm, including the margin."""
        extent = np.sqrt(((self.rotation * self.semi_axes[:, None]) ** 2).sum(axis=0)) + margin_mm
        return self.centre - extent, self.centre + extent

    def distance(self, grid: Grid, region: Region, margin_mm: float) -> Float32Array:
        """Return the signed distance over the region in mm, to first order. The margin is not used."""
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
        # Rounding can make the form negative near the centre, and its square root NaN.
        np.maximum(total, 0, out=total)
        return np.asarray(total, dtype=np.float32)


Shape: TypeAlias = Tube | Blob


def curve_tube(control: Sequence[Point], radii: Sequence[float], step_mm: float = 2.5) -> Tube:
    """Create a smooth tube through control points, resampled to even steps."""
    points = np.asarray(control, dtype=np.float64)
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    count = max(int(chord[-1] / step_mm), 2)
    position = np.linspace(0.0, chord[-1], count)
    path = PchipInterpolator(chord, points, axis=0)(position)
    radius = PchipInterpolator(chord, np.asarray(radii, dtype=np.float64))(position)
    return Tube(np.asarray(path, dtype=np.float32), np.asarray(radius, dtype=np.float32))


def ellipsoid(centre: Point, semi_axes: Point, turn_deg: Point = (0.0, 0.0, 0.0)) -> Blob:
    """Create an ellipsoid rotated about its z, y and x axes, in degrees."""
    rotation = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    as_float = [np.asarray(values, dtype=np.float32) for values in (centre, semi_axes, rotation)]
    return Blob(*as_float)


@dataclass(frozen=True, eq=False)
class Solid:
    """An organ or part of one: a union of shapes and its material.

    Attributes:
        shapes: painted together as one union.
        hu: attenuation of the solid, or of its wall if it is hollow.
        halo_mm: thickness of the layer of fat around it.
        rough_mm: amplitude of the outline's irregularity.
        rough_wavelength_mm: length scale of that irregularity.
        wall_mm: wall thickness of a hollow solid. Not used without inner_hu.
        inner_hu: attenuation inside the wall, or None if it is not hollow.
        gas_above_y: gas fills the inside anterior to this y in mm, or None for no gas.
        mottle_hu: amplitude of the texture inside.
        mottle_wavelength_mm: length scale of that texture.
        cavity_margin_mm: keeps the solid at least this far inside the cavity wall, or None for no limit. If negative,
            the solid may extend this far outside.
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
        """Return how far outside its nominal surface the solid can change voxels, in mm."""
        return self.halo_mm + 3.0 * self.rough_mm + self.edge_mm + 2.0 * grid.spacing_mm[2]

    def region(self, grid: Grid) -> Region:
        """Return the index box that the solid can reach."""
        corners = [shape.bounds(self.margin_mm(grid)) for shape in self.shapes]
        low = np.min([corner[0] for corner in corners], axis=0)
        high = np.max([corner[1] for corner in corners], axis=0)
        return grid.region(low, high)

    def distance(self, grid: Grid, region: Region, noise: SmoothNoise, offset: float) -> Float32Array:
        """Return the signed distance to the irregular outline over the region, in mm."""
        margin = self.margin_mm(grid)
        distance = self.shapes[0].distance(grid, region, margin)
        for shape in self.shapes[1:]:
            np.minimum(distance, shape.distance(grid, region, margin), out=distance)
        if self.rough_mm > 0:
            rough = noise.on_axes(*grid.axes(region), self.rough_wavelength_mm, offset)
            rough *= np.float32(self.rough_mm)
            distance += rough
        return distance
