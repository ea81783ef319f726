"""The trunk of the phantom: its layers, and the landmarks used to place organs.

Points are (z, y, x) in mm: z grows toward superior, y toward posterior, x toward patient left.
"""

from dataclasses import dataclass

import numpy as np

from cascade_rt.data.phantom_shapes import Float32Array, Grid, Point, Region, SmoothNoise

FAT_HU = -98.0


@dataclass(frozen=True, eq=False)
class Body:
    """Trunk outline and its layers: skin, subcutaneous fat, muscle wall.

    Attributes:
        half_width_mm: along x.
        half_depth_mm: along y.
        exponent: of the superellipse outline; 2 is an ellipse.
        outline_rough_mm: amplitude of the outline's irregularity.
        fat_mm: mean thickness of the subcutaneous fat.
        back_fat_mm: additional fat at the back and flanks.
        wall_mm: thickness of the muscle wall.
        dome_mm: z of the top of the diaphragm.
        dome_drop_mm: how much lower the diaphragm is at the wall than in the middle.
        noise: source of the irregularity.
    """

    half_width_mm: float
    half_depth_mm: float
    exponent: float
    outline_rough_mm: float
    fat_mm: float
    back_fat_mm: float
    wall_mm: float
    dome_mm: float
    dome_drop_mm: float
    noise: SmoothNoise

    def outline_depth(self, y: Float32Array, x: Float32Array) -> Float32Array:
        """Return the depth below the regular outline in mm, positive inside. y and x broadcast."""
        scaled = (abs(x / self.half_width_mm) ** self.exponent + abs(y / self.half_depth_mm) ** self.exponent) ** (
            1 / self.exponent
        )
        radius = np.sqrt(x**2 + y**2) + 1e-3
        groove = 5.0 * np.exp(-((x / 16.0) ** 2)) * (y > 0)
        return np.asarray(radius / np.maximum(scaled, 1e-4) - radius - groove, dtype=np.float32)

    def fat_depth(self, y: Float32Array, x: Float32Array) -> Float32Array:
        """Return the mean thickness of the subcutaneous fat in mm at (y, x). y and x broadcast."""
        backness = np.clip(y / self.half_depth_mm, -1, 1)
        flank = np.abs(x / self.half_width_mm) * np.clip(0.6 + backness, 0, 1)
        return np.asarray(self.fat_mm + self.back_fat_mm * flank + self._midline(y, x), dtype=np.float32)

    def muscle_depth(self, y: Float32Array, x: Float32Array) -> Float32Array:
        """Return the thickness of the muscle wall in mm at (y, x). y and x broadcast."""
        return np.asarray(self.wall_mm - self._midline(y, x), dtype=np.float32)

    def _midline(self, y: Float32Array, x: Float32Array) -> Float32Array:
        """Return how much thinner, from outside, the wall is between the rectus muscles, in mm."""
        return np.asarray(0.7 * self.wall_mm * np.exp(-((x / 5.0) ** 2)) * (y < 0), dtype=np.float32)

    def muscle_layer(self, y: Float32Array, x: Float32Array) -> Float32Array:
        """Return how clearly fat separates the layers of the wall, from 0 to 1. Nonzero only at the flanks."""
        flank = np.clip(np.abs(x / self.half_width_mm) * 3.0 - 1.2, 0, 1)
        return np.asarray(flank * np.clip(1.2 - 2.0 * y / self.half_depth_mm, 0, 1), dtype=np.float32)

    def irregularity(self, z: Float32Array, y: Float32Array, x: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Return the irregularity of the outline and of the fat thickness on a separable grid, in mm."""
        outline = self.noise.on_axes(z, y, x, 110.0, 3.3) * np.float32(self.outline_rough_mm)
        fat = self.noise.on_axes(z, y, x, 60.0, 11.7) * np.float32(0.12 * self.fat_mm)
        return outline, fat

    def muscle_depth_at(self, points: Float32Array) -> Float32Array:
        """Return the depth below the outer face of the muscle wall in mm, [n], at points of [n, 3] mm."""
        y, x = points[:, 1], points[:, 2]
        outline = self.noise.at(points, 110.0, 3.3) * np.float32(self.outline_rough_mm)
        fat = self.noise.at(points, 60.0, 11.7) * np.float32(0.12 * self.fat_mm)
        return np.asarray(self.outline_depth(y, x) + outline - self.fat_depth(y, x) - fat, dtype=np.float32)

    def dome_height(self, y: Float32Array, x: Float32Array) -> Float32Array:
        """Return the height z of the diaphragm in mm at (y, x). y and x broadcast."""
        squared = (x / self.half_width_mm) ** 2 + ((y + 10.0) / self.half_depth_mm) ** 2
        posterior = 0.35 * np.clip(y / self.half_depth_mm, 0, 1)
        return np.asarray(self.dome_mm - self.dome_drop_mm * (1.7 * squared + posterior), dtype=np.float32)

    def cavity_distance(self, grid: Grid, region: Region, below_diaphragm: bool) -> Float32Array:
        """Return the signed distance to the wall of the cavity over the region in mm, negative inside the cavity."""
        z, y, x = grid.axes(region)
        outline, fat = self.irregularity(z, y, x)
        column, row = y[:, None], x[None, :]
        wall = self.fat_depth(column, row) + self.muscle_depth(column, row) - self.outline_depth(column, row)
        fat -= outline
        fat += wall
        if not below_diaphragm:
            return fat
        # The diaphragm is steep, so the height difference overstates the distance. 0.7 is a mean slope factor.
        below = 0.7 * (z[:, None, None] - self.dome_height(column, row)[None])
        np.maximum(fat, below, out=fat)
        return fat


@dataclass(frozen=True, eq=False)
class Frame:
    """Landmarks in mm, used to place the organs."""

    body: Body
    spine_y: float
    spine_front_y: float
    front_wall_y: float
    side_wall_x: float
    back_wall_y: float

    @property
    def gap_mm(self) -> float:
        """Free depth between the spine and the anterior wall."""
        return self.spine_front_y - self.front_wall_y

    def at(self, z: float, forward: float, x: float) -> Point:
        """Return the point at a fraction of the way from the front of the spine (0) to the anterior wall (1)."""
        return z, self.spine_front_y - forward * self.gap_mm, x


def shifted(rng: np.random.Generator, point: Point, jitter_mm: float) -> Point:
    """Shift a point by Gaussian noise of the given standard deviation in mm along each axis."""
    z, y, x = np.asarray(point) + rng.normal(0.0, jitter_mm, 3)
    return float(z), float(y), float(x)
