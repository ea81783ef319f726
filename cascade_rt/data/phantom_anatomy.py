"""Draw one patient: body, organs, pancreas and tumor, in patient millimetres.

Only the random draws happen here. `phantom` turns them into voxels. Points are (z, y, x) in mm: z grows
toward superior, y toward posterior, x toward patient left. z = 0 is the middle of the pancreas.
"""

from dataclasses import dataclass

import numpy as np

from cascade_rt.data.phantom_frame import Body, Frame, shifted
from cascade_rt.data.phantom_organs import draw_organs
from cascade_rt.data.phantom_shapes import Blob, Point, SmoothNoise, Solid, Tube, curve_tube, ellipsoid

Generator = np.random.Generator

TUMOR_PROBABILITY = 0.85


@dataclass(frozen=True, eq=False)
class Tumor:
    """A tumor ready to be painted, whether or not the case has one.

    Attributes:
        blob: its nominal shape.
        rough_mm: amplitude of the outline's irregularity.
        contrast_hu: how much darker it is than the pancreas.
        edge_mm: width of the soft edge.
    """

    blob: Blob
    rough_mm: float
    contrast_hu: float
    edge_mm: float


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Everything about one patient that does not depend on the voxel grid.

    Attributes:
        body: trunk outline and layers.
        solids: organs in painting order, without the pancreas.
        pancreas: painted after all solids.
        tumor: painted last, if the case has one.
        tumor_present: whether the case has a tumor, unless the caller decides.
        field_of_view_mm: in-plane extent of the image.
        centre_mm: (z, y, x) of the image centre.
        slice_mm: slice distance at 96 slices.
        noise: source of all smooth irregularity.
        noise_hu: standard deviation of the CT noise.
        couch_gap_mm: gap between back and couch, or None for an image without a couch.
    """

    body: Body
    solids: tuple[Solid, ...]
    pancreas: Solid
    tumor: Tumor
    tumor_present: bool
    field_of_view_mm: float
    centre_mm: Point
    slice_mm: float
    noise: SmoothNoise
    noise_hu: float
    couch_gap_mm: float | None


def draw_anatomy(anatomy_seed: np.random.SeedSequence, tumor_seed: np.random.SeedSequence) -> Anatomy:
    """Draw a patient. The tumor has its own random stream, so the anatomy never depends on it."""
    rng = np.random.default_rng(anatomy_seed)
    noise = SmoothNoise(rng.standard_normal((32, 32, 32), dtype=np.float32))
    spacing = float(np.clip(rng.normal(0.80, 0.07), 0.65, 0.95))
    field_of_view = spacing * 512
    body = _draw_body(rng, noise, field_of_view)
    frame = _draw_frame(rng, body)
    tube = _draw_pancreas_course(rng, frame)
    pancreas = _draw_pancreas(rng, tube)
    solids = draw_organs(rng, frame, tube)
    tumor_rng = np.random.default_rng(tumor_seed)
    return Anatomy(
        body=body,
        solids=solids,
        pancreas=pancreas,
        tumor=_draw_tumor(tumor_rng, tube),
        tumor_present=bool(tumor_rng.random() < TUMOR_PROBABILITY),
        field_of_view_mm=field_of_view,
        centre_mm=(float(rng.uniform(-15, 15)), float(rng.uniform(-4, 12)), float(rng.uniform(-8, 8))),
        slice_mm=float(rng.uniform(2.3, 2.7)),
        noise=noise,
        noise_hu=float(rng.uniform(8, 13)),
        couch_gap_mm=float(rng.uniform(1, 6)) if rng.random() < 0.8 else None,
    )


def _draw_body(rng: Generator, noise: SmoothNoise, field_of_view_mm: float) -> Body:
    half_width = field_of_view_mm * rng.uniform(0.39, 0.45)
    dome = rng.uniform(80, 120)
    return Body(
        half_width_mm=half_width,
        half_depth_mm=half_width * rng.uniform(0.64, 0.76),
        exponent=rng.uniform(2.15, 2.6),
        outline_rough_mm=rng.uniform(2.0, 4.0),
        fat_mm=6.0 + (half_width - 120) * rng.uniform(0.1, 0.35),
        back_fat_mm=rng.uniform(4, 22),
        wall_mm=rng.uniform(9, 15),
        dome_mm=dome,
        dome_drop_mm=rng.uniform(45, 65),
        noise=noise,
    )


def _draw_frame(rng: Generator, body: Body) -> Frame:
    back_muscle = body.half_depth_mm - body.fat_mm
    spine_y = back_muscle - rng.uniform(60, 68)
    spread = body.fat_mm + body.wall_mm
    return Frame(
        body=body,
        spine_y=spine_y,
        spine_front_y=spine_y - 17,
        front_wall_y=-body.half_depth_mm + spread,
        side_wall_x=body.half_width_mm - spread - 0.6 * body.back_fat_mm,
        back_wall_y=back_muscle,
    )


# ---------------------------------------------------------------- pancreas and tumor


def _draw_pancreas_course(rng: Generator, frame: Frame) -> Tube:
    head_drop, tail_rise = rng.uniform(30, 62), rng.uniform(-5, 48)
    arch, reach = rng.uniform(-6, 18), rng.uniform(0.52, 0.72) * frame.side_wall_x
    front = frame.spine_front_y - rng.uniform(0, 6)
    shift = rng.uniform(-6, 6)
    control = [
        (-head_drop, front - 20, -24.0 + shift),
        (-0.55 * head_drop, front - 24, -32.0 + shift),
        (-0.10 * head_drop, front - 32, -29.0 + shift),
        (0.3 * arch, front - 41, -7.0 + shift),
        (arch + 0.25 * tail_rise, front - 42, 0.24 * reach),
        (arch * 0.8 + 0.6 * tail_rise, front - 29, 0.6 * reach),
        (tail_rise, front - rng.uniform(-18, 8), reach),
    ]
    control = [shifted(rng, point, 2.5) for point in control]
    middle = 0.5 * (max(point[0] for point in control) + min(point[0] for point in control))
    control = [(z - middle, y, x) for z, y, x in control]
    size = rng.uniform(0.9, 1.25)
    radii = [9.5, 14.0, 13.5, 8.0, 9.5, 10.5, 8.0]
    radii = [float(radius * size * rng.uniform(0.88, 1.12)) for radius in radii]
    return curve_tube(control, radii, 1.5)


def _draw_pancreas(rng: Generator, tube: Tube) -> Solid:
    return Solid(
        shapes=(tube,),
        hu=rng.uniform(86, 106),
        halo_mm=rng.uniform(0.5, 4.0),
        rough_mm=rng.uniform(1.0, 1.8),
        rough_wavelength_mm=rng.uniform(5.5, 9),
        mottle_hu=rng.uniform(3, 7),
        mottle_wavelength_mm=5.0,
    )


def _draw_tumor(rng: Generator, tube: Tube) -> Tumor:
    fraction = rng.uniform(0.06, 0.4) if rng.random() < 0.62 else rng.uniform(0.4, 0.95)
    index = int(fraction * (len(tube.points) - 1))
    radius = 0.5 * float(np.clip(np.exp(rng.normal(np.log(18.8), 0.35)), 6.0, 40.0))
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    centre_z, centre_y, centre_x = tube.points[index] + direction * tube.radii[index] * rng.uniform(0.0, 0.7)
    stretch = rng.uniform(0.8, 1.25, 3)
    stretch /= np.prod(stretch) ** (1 / 3)
    z, y, x = (float(value) for value in radius * stretch)
    turn = (rng.uniform(-90, 90), rng.uniform(-90, 90), rng.uniform(-90, 90))
    return Tumor(
        blob=ellipsoid((float(centre_z), float(centre_y), float(centre_x)), (z, y, x), turn),
        rough_mm=0.09 * radius,
        contrast_hu=rng.uniform(17, 38),
        edge_mm=min(rng.uniform(1.0, 4.0), 0.3 * radius),
    )
