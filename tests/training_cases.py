"""Cases to train on that fit in a few kilobytes."""

import numpy as np

from cascade_rt.data.slices import Case


def disc_case(slices: int = 4, side: int = 64) -> Case:
    """Slices with a bright organ and a darker tumor in it, each at another place."""
    random = np.random.default_rng(0)
    image = random.normal(-80, 10, (slices, side, side)).astype(np.int16)
    label = np.zeros(image.shape, dtype=np.uint8)
    for z in range(slices):
        row, col = 8 + 3 * z, 30 - 4 * z
        label[z, row : row + 24, col : col + 28] = 1
        label[z, row + 6 : row + 16, col + 6 : col + 18] = 2
    image[label == 1] += 180
    image[label == 2] += 120
    return Case("discs", image, label, (2.5, 0.8, 0.8))
