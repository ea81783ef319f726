"""Draw the organs around the pancreas: chest and upper abdomen, kidneys, gut and vessels.

Points are (z, y, x) in mm: z grows toward superior, y toward posterior, x toward patient left. z = 0 is the
middle of the pancreas.
"""

import numpy as np

from cascade_rt.data.phantom_frame import FAT_HU, Frame, shifted
from cascade_rt.data.phantom_shapes import Blob, Point, Solid, Tube, curve_tube, ellipsoid
from cascade_rt.data.phantom_skeleton import draw_skeleton

Generator = np.random.Generator


def draw_organs(rng: Generator, frame: Frame, pancreas: Tube) -> tuple[Solid, ...]:
    """Draw all organs except the pancreas, in painting order."""
    return (
        *_upper_organs(rng, frame),
        *draw_skeleton(rng, frame),
        *_kidneys(rng, frame),
        *_colon(rng, frame),
        *_great_vessels(rng, frame),
        *_bowel(rng, frame),
        *_stomach_and_duodenum(rng, frame, pancreas),
        *_pancreatic_vessels(rng, frame, pancreas),
    )


# ---------------------------------------------------------------- upper abdomen and chest


def _liver(rng: Generator, frame: Frame) -> tuple[tuple[Blob, ...], tuple[Tube, ...]]:
    """Draw the lobes, and the portal and hepatic veins inside them."""
    side, front, spine, top = frame.side_wall_x, frame.front_wall_y, frame.spine_y, frame.body.dome_mm
    tip = rng.uniform(-75, -25)
    half = 0.5 * (top - tip) + 12
    right = ellipsoid(
        (top - half, spine - 38, -0.64 * side),
        (half, 78, 0.54 * side),
        (rng.uniform(-6, 6), rng.uniform(6, 20), rng.uniform(-6, 6)),
    )
    dome = ellipsoid((top - 45, -12.0, -0.40 * side), (50, 75, 0.62 * side), _turn(rng, 8))
    left_reach = rng.uniform(0.25, 0.55) * side
    left_top = rng.uniform(45, 70)
    left = ellipsoid(
        (left_top, front + 34, -0.18 * side), (rng.uniform(40, 60), 36, left_reach + 0.2 * side), _turn(rng, 10)
    )
    hilum = (rng.uniform(25, 40), spine - 62.0, -38.0)
    vessels = [
        curve_tube(
            [
                hilum,
                shifted(rng, (top - 50, -5.0 + 25 * k, -0.35 * side - 18 * k), 10.0),
                shifted(rng, (top - 40 - 22 * k, -20.0 + 22 * k, -0.72 * side), 14.0),
            ],
            [6.0, 4.5, 2.2],
        )
        for k in range(-1, 3)
    ]
    vessels += [
        curve_tube(
            [
                (top - 28, spine - 42.0, -18.0),
                shifted(rng, (top - 42, spine - 60.0 + 30 * k, -0.45 * side), 8.0),
                shifted(rng, (top - 62, spine - 75.0 + 45 * k, -0.7 * side), 10.0),
            ],
            [6.0, 4.0, 2.0],
        )
        for k in range(3)
    ]
    return (right, dome, left), tuple(vessels)


def _upper_organs(rng: Generator, frame: Frame) -> list[Solid]:
    side, front, spine, top = frame.side_wall_x, frame.front_wall_y, frame.spine_y, frame.body.dome_mm
    liver_hu = rng.uniform(98, 118)
    lobes, vessels = _liver(rng, frame)
    gall = ellipsoid(
        shifted(rng, (rng.uniform(-5, 15), front + 38, -0.46 * side), 4.0),
        (rng.uniform(16, 30), rng.uniform(14, 24), rng.uniform(11, 17)),
        _turn(rng, 25),
    )
    spleen_z = rng.uniform(30, 60)
    spleen = ellipsoid(
        (spleen_z, spine - rng.uniform(2, 22), 0.88 * side),
        (rng.uniform(42, 58), rng.uniform(42, 54), rng.uniform(24, 34)),
        (0.0, 0.0, 0.0),
    )
    heart = ellipsoid((top + 30, -22.0, 22.0), (48, 44, 56), _turn(rng, 10))
    gullet = curve_tube([(170, spine - 36, -2.0), (75, spine - 36, 10.0), (55, spine - 40, 30.0)], [7.0, 8.0, 9.0])
    adrenal = [
        curve_tube(
            [(8, spine - 8.0, 34.0 * flip), (18, spine - 15.0, 27.0 * flip), (30, spine - 5.0, 29.0 * flip)],
            [2.0, 2.6, 1.8],
        )
        for flip in (-1, 1)
    ]
    solids = [
        Solid((heart,), 150.0, 4.0, 2.0, 30.0),
        Solid((gullet,), 62.0, 1.0, 1.0, 9.0, mottle_hu=8.0),
        Solid(tuple(adrenal), 80.0, 2.0, 0.6, 6.0),
        Solid(lobes, liver_hu, 1.5, 3.0, 45.0, mottle_hu=3.0, mottle_wavelength_mm=18.0, cavity_margin_mm=1.0),
        Solid(vessels, liver_hu + rng.uniform(25, 50), rough_mm=0.5, rough_wavelength_mm=12.0, cavity_margin_mm=8.0),
        Solid((spleen,), liver_hu + rng.uniform(2, 16), 1.5, 2.5, 25.0, mottle_hu=2.5, cavity_margin_mm=1.0),
    ]
    if rng.random() < 0.8:
        solids.append(Solid((gall,), 75.0, 0.0, 1.2, 15.0, wall_mm=1.6, inner_hu=rng.uniform(2, 18)))
    return solids


def _turn(rng: Generator, most_deg: float) -> Point:
    a, b, c = rng.uniform(-most_deg, most_deg, 3)
    return float(a), float(b), float(c)


def _kidneys(rng: Generator, frame: Frame) -> list[Solid]:
    solids = []
    cortex = rng.uniform(165, 200)
    for side in (-1.0, 1.0):
        height = rng.uniform(-42, -22) if side < 0 else rng.uniform(-32, -12)
        lateral = side * (rng.uniform(58, 66) + 0.08 * (frame.side_wall_x - 120))
        centre = (height, frame.spine_y + rng.uniform(0, 9), lateral)
        length, size = rng.uniform(48, 58), rng.uniform(0.9, 1.1)
        turn = (side * rng.uniform(5, 14), rng.uniform(-6, 10), side * rng.uniform(10, 35))
        body = ellipsoid(centre, (length, 29 * size, 25 * size), turn)
        sinus = ellipsoid((height, centre[1] - 8, lateral - side * 14), (length * 0.5, 10 * size, 15 * size), turn)
        pelvis = ellipsoid((height - 4, centre[1] - 9, lateral - side * 17), (9, 5, 10), turn)
        solids += [
            Solid(
                (body,),
                cortex,
                rng.uniform(2, 6),
                1.6,
                18.0,
                wall_mm=6.5,
                inner_hu=cortex - 35,
                mottle_hu=12.0,
                mottle_wavelength_mm=7.0,
                cavity_margin_mm=5.0,
                below_diaphragm=False,
            ),
            Solid((sinus,), FAT_HU + 10, 0.0, 2.5, 8.0, edge_mm=1.5),
            Solid((pelvis,), 70.0, 0.0, 1.5, 8.0, edge_mm=2.0),
        ]
    return solids


# ---------------------------------------------------------------- gut


def _colon(rng: Generator, frame: Frame) -> list[Solid]:
    side, front, y = frame.side_wall_x, frame.front_wall_y, frame.spine_y
    low, flexure_right, flexure_left = -190.0, rng.uniform(-60, -25), rng.uniform(0, 35)
    sag = rng.uniform(-75, -35)
    right = [(low, y - 35, -side + 34), (flexure_right - 25, y - 18, -side + 28), (flexure_right, y - 50, -side + 38)]
    middle = [
        (flexure_right, y - 60, -side + 40),
        (sag * 0.8, front + 28, -0.4 * side),
        (sag, front + 24, 0.05 * side),
        (sag * 0.5, front + 30, 0.5 * side),
        (flexure_left, y - 45, side - 28),
    ]
    left = [(flexure_left, y - 38, side - 24), (-30, y - 8, side - 22), (low, y - 18, side - 26)]
    right, middle, left = ([shifted(rng, point, 4.0) for point in path] for path in (right, middle, left))
    solids = []
    for path, radius in ((right, rng.uniform(17, 25)), (middle, rng.uniform(13, 21)), (left, rng.uniform(9, 15))):
        gas_y = _mean_y(path) - radius * rng.uniform(-0.3, 0.7) if rng.random() < 0.75 else None
        stool = rng.uniform(15, 70)
        solids.append(
            Solid(
                (curve_tube(path, [radius] * len(path)),),
                rng.uniform(70, 95),
                0.8,
                2.5,
                13.0,
                wall_mm=2.4,
                inner_hu=stool,
                gas_above_y=gas_y,
                mottle_hu=rng.uniform(5, 45),
                mottle_wavelength_mm=4.0,
                cavity_margin_mm=2.0,
            )
        )
    return solids


def _mean_y(path: list[Point]) -> float:
    return float(np.mean([point[1] for point in path]))


def _bowel(rng: Generator, frame: Frame) -> list[Solid]:
    """Draw small-bowel loops, many as bright as the pancreas, and the mesenteric vessels."""
    solids = []
    for _ in range(int(rng.integers(14, 24)) + int(0.25 * (frame.side_wall_x - 100))):
        x, z = rng.uniform(-0.35, 0.72) * frame.side_wall_x, rng.uniform(-165, 0)
        near = rng.random() < 0.25
        start = frame.at(
            rng.uniform(-45, 15) if near else z, rng.uniform(0.35, 0.75), rng.uniform(5, 75) if near else x
        )
        solids.append(_loop(rng, start))
    for _ in range(4):
        start = frame.at(rng.uniform(-60, 5), rng.uniform(0.3, 0.5), rng.uniform(30, 0.6 * frame.side_wall_x))
        solids.append(_loop(rng, start))
    root = frame.at(-5.0, 0.42, 0.0)
    for _ in range(34):
        x, z = rng.uniform(-0.6, 0.75) * frame.side_wall_x, rng.uniform(-130, 10)
        end = frame.at(z, rng.uniform(0.4, 0.9), x)
        middle = shifted(rng, (0.5 * (root[0] + end[0]) - 15, 0.5 * (root[1] + end[1]), 0.5 * (root[2] + end[2])), 9.0)
        solids.append(Solid((curve_tube([root, middle, end], [2.4, 1.9, 1.2], 1.2),), rng.uniform(110, 165)))
    return solids


def _loop(rng: Generator, start: Point) -> Solid:
    heading = rng.normal(size=3) * np.array([0.7, 0.6, 1.0])
    point, path = np.asarray(start), [start]
    for _ in range(int(rng.integers(3, 7))):
        heading = 0.6 * heading / np.linalg.norm(heading) + rng.normal(size=3) * np.array([0.45, 0.4, 0.5])
        point = point + 17 * heading / np.linalg.norm(heading)
        path.append((float(point[0]), float(point[1]), float(point[2])))
    radius = rng.uniform(7.0, 13.5)
    radii = [float(radius * rng.uniform(0.8, 1.15)) for _ in path]
    collapsed = rng.random() < 0.6
    return Solid(
        (curve_tube(path, radii),),
        rng.uniform(82, 112),
        rng.uniform(0, 1.2),
        1.5,
        9.0,
        wall_mm=rng.uniform(2.0, 3.0),
        inner_hu=rng.uniform(68, 100) if collapsed else rng.uniform(12, 40),
        gas_above_y=_mean_y(path) - 0.55 * radius if rng.random() < 0.15 else None,
        mottle_hu=rng.uniform(4, 14),
        mottle_wavelength_mm=4.5,
        cavity_margin_mm=3.0,
    )


def _stomach_and_duodenum(rng: Generator, frame: Frame, pancreas: Tube) -> list[Solid]:
    side, front = frame.side_wall_x, frame.front_wall_y
    size = rng.uniform(0.6, 1.2)
    low = rng.uniform(-15, 25)
    stomach_path = [
        (low + 75, frame.spine_y - 28, 0.50 * side),
        (low + 45, front + 52, 0.55 * side),
        (low + 12, front + 34, 0.42 * side),
        (low, front + 30, 0.1 * side),
        (low + 6, front + 40, -0.18 * side),
    ]
    stomach_path = [shifted(rng, point, 5.0) for point in stomach_path]
    radii = [34 * size, 32 * size, 26 * size, 17 * size, 10.0]
    gas_y = front + rng.uniform(18, 40) if rng.random() < 0.8 else None
    stomach = Solid(
        (curve_tube(stomach_path, radii, 3.0),),
        rng.uniform(78, 98),
        2.0,
        2.5,
        22.0,
        wall_mm=rng.uniform(3.0, 5.5),
        inner_hu=rng.uniform(8, 50),
        gas_above_y=gas_y,
        mottle_hu=rng.uniform(2, 16),
        cavity_margin_mm=2.0,
    )
    low_head, head = pancreas.points[2], pancreas.points[len(pancreas.points) // 5]
    bulb = (float(head[0] + 14), float(head[1] - 14), float(head[2] - 10))
    wide = float(pancreas.radii.max()) + rng.uniform(8, 12)
    bottom = float(low_head[0]) - rng.uniform(12, 20)
    path = [
        stomach_path[-1],
        bulb,
        (float(head[0]), float(head[1] + 4), float(head[2] - wide)),
        (float(low_head[0]), float(low_head[1] + 2), float(low_head[2]) - wide + 4),
        (bottom, frame.spine_front_y - 20, -18.0),
        (bottom + 2, frame.spine_front_y - 29, 6.0),
        (bottom + 12, frame.spine_front_y - 24, 30.0),
        (bottom + 30, frame.spine_front_y - 34, 42.0),
    ]
    radius = rng.uniform(8.5, 12.5)
    collapsed = rng.random() < 0.5
    duodenum = Solid(
        (curve_tube(path, [radius] * 5 + [0.75 * radius] + [0.9 * radius] * 2),),
        rng.uniform(84, 108),
        0.5,
        1.3,
        9.0,
        wall_mm=2.6,
        inner_hu=rng.uniform(65, 95) if collapsed else rng.uniform(15, 45),
        gas_above_y=bulb[1] - 2 if rng.random() < 0.25 else None,
        mottle_hu=rng.uniform(4, 12),
        mottle_wavelength_mm=5.0,
    )
    return [stomach, duodenum]


# ---------------------------------------------------------------- vessels


def _great_vessels(rng: Generator, frame: Frame) -> list[Solid]:
    front = frame.spine_front_y
    bright = rng.uniform(140, 180)
    aorta_x, cava_x = rng.uniform(5, 14), -rng.uniform(20, 27)
    aorta_r, cava_r = rng.uniform(8.5, 12), rng.uniform(9, 13)
    aorta = [shifted(rng, (z, front - 11 + 0.03 * max(z, 0), aorta_x + 0.06 * z), 1.0) for z in (-180, -90, 0, 90, 180)]
    cava = [shifted(rng, (z, front - 9 - 0.16 * max(z, 0), cava_x + 0.03 * z), 1.0) for z in (-180, -90, 0, 60, 130)]
    left_renal = [
        (-14, frame.spine_y - 4, 48.0),
        (-8, front - 16, 26.0),
        (-4, front - 23, 4.0),
        (-6, front - 14, cava_x + 4),
    ]
    right_renal = [(-30, frame.spine_y - 2, -48.0), (-24, front - 6, cava_x)]
    kidney_arteries = [
        curve_tube([(-12, front - 10, aorta_x), (-16, frame.spine_y - 6, side * 46.0)], [3.0, 2.4]) for side in (-1, 1)
    ]
    celiac = [
        (24, front - 14, aorta_x),
        (28, front - 32, aorta_x - 2),
        (34, front - 34, -24.0),
        (36, front - 30, -45.0),
    ]
    artery = bright + rng.uniform(-5, 15)
    return [
        Solid(
            (curve_tube(cava, [cava_r, cava_r, 1.1 * cava_r, 1.15 * cava_r, 12.0]),),
            bright - rng.uniform(0, 25),
            0.4,
            1.4,
            16.0,
        ),
        Solid(
            (curve_tube(left_renal, [4.0, 4.5, 3.6, 4.0]), curve_tube(right_renal, [4.5, 5.0])),
            bright - 5,
            0.8,
            0.4,
            10.0,
        ),
        Solid(
            (curve_tube(aorta, [aorta_r] * 5), *kidney_arteries, curve_tube(celiac, [4.0, 3.5, 2.6, 2.0])),
            artery,
            1.0,
            0.4,
            18.0,
        ),
    ]


def _pancreatic_vessels(rng: Generator, frame: Frame, pancreas: Tube) -> list[Solid]:
    """Draw the splenic, portal and mesenteric vessels, the landmarks around the pancreas."""
    front, hu = frame.spine_front_y, rng.uniform(150, 185)
    count = len(pancreas.points)
    neck = pancreas.points[int(0.47 * count)]
    confluence = (float(neck[0]), float(neck[1]) + 12.0, float(neck[2]) - 4.0)
    along = [pancreas.points[int(fraction * (count - 1))] for fraction in (0.58, 0.7, 0.85, 1.0)]
    splenic = [(float(p[0]) + 1, float(p[1]) + 10.5, float(p[2])) for p in along]
    last = splenic[-1]
    splenic.append((last[0] + 8, last[1] - 4, last[2] + 22))
    portal = [
        confluence,
        (confluence[0] + 18, confluence[1] - 4, -20.0),
        (rng.uniform(38, 48), frame.spine_y - 62.0, -38.0),
    ]
    mesenteric = [
        confluence,
        (confluence[0] - 25, confluence[1] - 4, -4.0),
        (-75, front - 45, -2.0),
        (-150, front - 50, -8.0),
    ]
    artery = [(10.0, front - 14, 10.0), (2, front - 28, 9.0), (-30, front - 36, 10.0), (-150, front - 46, 8.0)]
    veins = (
        curve_tube([confluence, *splenic], [5.0] + [3.8] * 5),
        curve_tube(portal, [6.8, 6.5, 6.0]),
        curve_tube(mesenteric, [6.0, 5.5, 5.0, 3.5]),
    )
    return [
        Solid(veins, hu, 1.0, 0.5, 12.0),
        Solid((curve_tube(artery, [3.8, 3.8, 3.6, 2.5]),), hu + rng.uniform(-20, 10), 2.5, 0.3, 12.0),
    ]
