"""Draw the spine, the ribs and the back muscles.

Points are (z, y, x) in mm: z grows toward superior, y toward posterior, x toward patient left.
"""

import numpy as np

from cascade_rt.data.phantom_frame import Frame
from cascade_rt.data.phantom_shapes import Blob, Float32Array, Solid, Tube, curve_tube, ellipsoid


def draw_skeleton(rng: np.random.Generator, frame: Frame) -> list[Solid]:
    """Draw back muscles, spine and ribs, in painting order."""
    y, solids = frame.spine_y, []
    muscle = rng.uniform(50, 62)
    for side in (-1.0, 1.0):
        psoas = curve_tube(
            [(50, y + 2, side * 24), (0, y + 2, side * 33), (-60, y - 1, side * 40), (-170, y - 8, side * 50)],
            [4.0, 11.0, 18.0, 24.0],
            4.0,
        )
        deep = y + rng.uniform(40, 46)
        back = (
            curve_tube([(-170, deep, side * 24), (170, deep, side * 22)], [19.0, 17.0], 4.0),
            curve_tube([(-170, deep - 2, side * 46), (170, deep - 1, side * 42)], [19.0, 15.0], 4.0),
            curve_tube([(-170, deep - 5, side * 60), (60, deep - 4, side * 58)], [12.0, 7.0], 4.0),
        )
        loin = ellipsoid((-75.0, y + 29, side * 64), (130.0, 9.0, 23.0), (0.0, 0.0, side * 20.0))
        crus = curve_tube(
            [(120, y - 26, side * 17), (30, y - 22, side * 15), (-15, y - 16, side * 15)], [5.0, 6.5, 3.0]
        )
        solids += [
            Solid(
                back,
                muscle,
                0.0,
                1.8,
                11.0,
                mottle_hu=9.0,
                mottle_wavelength_mm=6.0,
                cavity_margin_mm=1.0 - frame.body.wall_mm,
                below_diaphragm=False,
            ),
            Solid((psoas,), muscle + 3, 1.5, 1.5, 18.0, mottle_hu=3.0),
            Solid(
                (loin,),
                muscle,
                0.0,
                1.5,
                18.0,
                mottle_hu=4.0,
                cavity_margin_mm=1.0 - frame.body.wall_mm,
                below_diaphragm=False,
            ),
            Solid((crus,), muscle + 8, 0.5, 0.8, 10.0),
        ]
    return solids + _spine(rng, frame) + _ribs(rng, frame)


def _spine(rng: np.random.Generator, frame: Frame) -> list[Solid]:
    y, pitch, phase = frame.spine_y, rng.uniform(31, 36), rng.uniform(0, 34)
    marrow = rng.uniform(170, 260)
    levels = [-170 + phase + pitch * number for number in range(11)]
    column = tuple(curve_tube([(-180, y, x), (180, y, x)], [16.5, 16.5], 3.0) for x in (-6.0, 6.0))
    discs = tuple(ellipsoid((z, y, 0.0), (4.5, 16.0, 21.0)) for z in levels)
    arch: list[Tube] = []
    spinous: list[Blob] = []
    for z in levels:
        mid = z + 0.5 * pitch
        spinous.append(ellipsoid((mid - 12, y + 50, 0.0), (11, 17, 3.5), (0.0, 0.0, 0.0)))
        for side in (-1.0, 1.0):
            arch += [
                curve_tube(
                    [(mid + 4, y + 12, side * 14), (mid, y + 27, side * 16), (mid - 6, y + 38, side * 3)],
                    [6, 6.5, 4.5],
                    3.0,
                ),
                curve_tube([(mid, y + 26, side * 17), (mid + 2, y + 29, side * 38)], [5.0, 3.5], 3.0),
                curve_tube([(mid - 20, y + 30, side * 15), (mid - 6, y + 29, side * 16)], [6.0, 5.0], 3.0),
            ]
    canal = curve_tube([(-180, y + 24, 0.0), (180, y + 24, 0.0)], [9.5, 9.5], 4.0)
    cord = curve_tube([(-60, y + 25, 0.0), (180, y + 25, 0.0)], [3.0, 5.0], 3.0)
    return [
        Solid(column, 420.0, 0.5, 0.8, 14.0, wall_mm=2.2, inner_hu=marrow, mottle_hu=22.0, mottle_wavelength_mm=4.0),
        Solid(discs, 85.0, 0.0, 0.5, 10.0, edge_mm=1.0),
        Solid((*arch, *spinous), 450.0, 0.0, 0.8, 9.0, wall_mm=1.8, inner_hu=marrow + 60, mottle_hu=25.0),
        Solid((canal,), 15.0, 0.0, 0.4, 12.0),
        Solid((cord,), 42.0, 0.0, 0.4, 12.0),
    ]


def _ribs(rng: np.random.Generator, frame: Frame) -> list[Solid]:
    solids = []
    slope, first = rng.uniform(55, 85), rng.uniform(-30, 0)
    for level in range(6):
        sweep = (0.35, 0.55, 0.95, 1.0, 1.0, 1.0)[level]
        for side in (-1.0, 1.0):
            angle = np.linspace(0.17, 0.17 + 0.66 * sweep, 60) * np.pi
            reach = np.stack([np.zeros(60), np.cos(angle), side * np.sin(angle)], axis=1)
            height = first + 29 * level - slope * (angle - angle[0]) / (0.66 * np.pi) + rng.normal(0, 1.5)
            radius = np.full(60, 0.8 * frame.body.half_width_mm)
            for _ in range(4):
                points = (reach * radius[:, None] + np.stack([height, 0 * height, 0 * height], axis=1)).astype(
                    np.float32
                )
                radius += 0.9 * (frame.body.muscle_depth_at(points) - 0.62 * frame.body.wall_mm)
            solids += _rib(points)
    return solids


def _rib(points: Float32Array) -> list[Solid]:
    # Short pieces keep the evaluated boxes small, because a whole rib spans half the body.
    pieces = [points[start : start + 16] for start in range(0, len(points), 15)]
    outer = [Solid((Tube(piece, np.full(len(piece), 5.0, dtype=np.float32)),), 430.0, rough_mm=0.5) for piece in pieces]
    inner = [Solid((Tube(piece, np.full(len(piece), 3.0, dtype=np.float32)),), 190.0, edge_mm=1.0) for piece in pieces]
    return outer + inner
