"""What is said of the numbers of a scan does not hang on single voxels, nor on what its slices are padded with."""

from typing import Any

import numpy as np
import pytest

from cascade_rt.scans.checks import check_content, geometry_warnings
from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.nifti.gate import RejectedFile
from tests.broken_scans import HU, rescaled
from tests.volume_files import LPS_AFFINE, Array, rotation

TISSUES = np.where(np.arange(HU.shape[2]) % 2, HU + 60, HU - 100)
"""The body in stripes of muscle and fat, which lie on either side of water."""
PADDINGS = (None, -1024, -1025, -2000, -3024, -32768)


def padded(voxels: Array, value: int | None) -> Array:
    """The scan with a fifth of each slice, on one side, of padding."""
    changed = voxels.astype(np.int16)
    if value is not None:
        changed[:, :, -changed.shape[2] // 5 :] = value
    return changed


def said_of(voxels: Array) -> list[str]:
    """The code of the refusal, or those of the warnings."""
    whole = np.rint(voxels).astype(np.int16)
    try:
        return [warning.code for warning in check_content(whole, (voxels.min(), voxels.max()), assume_hu=False)]
    except RejectedFile as refusal:
        return [refusal.code]


def body(fat: float, organs: float, bone: float) -> Array:
    """A scan that is half air, half body of these parts of tissue; what is left is muscle streaked with fat."""
    count = 4000
    parts = [(-100, fat), (50, organs), (300, bone), (-40, 1 - fat - organs - bone)]
    tissues = np.concatenate([np.full(round(share * count), hu) for hu, share in parts])
    noise = np.random.default_rng(0).normal(0, 20, tissues.size)
    return np.concatenate([np.full(count, -1000), tissues + noise]).reshape(1, 80, -1)


LEAN, FAT = body(0.25, 0.6, 0.1), body(0.6, 0.2, 0.05)
"""What the scans are like that the limits were measured on: from 0.6 of organs and muscle to 0.12."""


@pytest.mark.parametrize("voxels", [LEAN, FAT], ids=["lean", "fat"])
def test_bodies_lean_and_fat_pass(voxels: Array) -> None:
    assert said_of(voxels) == []


@pytest.mark.parametrize(
    "changed",
    [LEAN - 200, FAT - 200, FAT - 100, LEAN + 100, LEAN * 2, FAT * 2],
    ids=["lean - 200", "fat - 200", "fat - 100", "lean + 100", "lean x 2", "fat x 2"],
)
def test_shifted_and_scaled_units_are_doubted(changed: Array) -> None:
    assert said_of(changed) == ["W_NOT_HU"]


every_padding = pytest.mark.parametrize("padding", PADDINGS)


@every_padding
def test_a_scan_in_hounsfield_units_passes_whatever_its_padding_is(padding: int | None) -> None:
    assert said_of(padded(HU, padding)) == []


@every_padding
def test_an_offset_is_seen_and_named_whatever_the_padding_is(padding: int | None) -> None:
    voxels = padded(HU + 1024, padding)
    (warning,) = check_content(voxels, (voxels.min(), voxels.max()), assume_hu=False)
    assert warning.code == "W_NOT_HU"
    assert "try `hu_offset=-1024`" in warning.message


@every_padding
def test_units_ten_times_too_small_are_seen_whatever_the_padding_is(padding: int | None) -> None:
    assert said_of(padded(TISSUES * 10, padding)) == ["W_NOT_HU"]


@pytest.mark.parametrize("padding", PADDINGS[1:])
def test_bytes_with_padding_below_are_doubted(padding: int) -> None:
    assert said_of(padded(rescaled(0, 255, "i2"), padding)) == ["W_NOT_HU"]


@pytest.mark.parametrize("odd", [-32768, -2000, -1, 40, 3000, 32767])
@pytest.mark.parametrize(
    ("voxels", "codes"),
    [
        (HU, []),
        (HU + 1024, ["W_NOT_HU"]),
        (TISSUES * 10, ["W_NOT_HU"]),
        (TISSUES / 10, ["W_NOT_HU"]),
        (rescaled(0, 255, "i2"), ["E_NOT_HU"]),
        (rescaled(0, 1, "f4"), ["E_NOT_HU"]),
        (np.where(HU > -500, HU + 600, -300), ["W_NOT_CT"]),
    ],
    ids=["HU", "HU + 1024", "HU x 10", "HU / 10", "bytes", "normalised", "not a CT"],
)
def test_a_single_voxel_changes_nothing(voxels: Array, codes: list[str], odd: int) -> None:
    changed = voxels.copy()
    changed[0, 0, 0] = odd
    assert said_of(changed) == codes


def test_attenuation_values_are_named_and_not_mistaken_for_an_empty_scan() -> None:
    attenuation = 0.02 * (1 + HU / 1000)
    whole = np.rint(attenuation).astype(np.int16)
    with pytest.raises(RejectedFile, match=r"its values, -0\.0\d+ to 0\.02\d+, are not Hounsfield units .*attenuation"):
        check_content(whole, (attenuation.min(), attenuation.max()), assume_hu=False)


@pytest.mark.parametrize("options", [{"assume_hu": True}])
def test_units_are_not_judged_if_the_user_vouches_for_them(options: dict[str, Any]) -> None:
    assert check_content((HU + 1024).astype(np.int16), (0, 4000), **options) == ()


@pytest.mark.parametrize("degrees", [0, 15, 75, 90, 180, 340])
@pytest.mark.parametrize("lean", [0, 15])
def test_slices_that_are_nearly_upright_are_not_doubted(degrees: float, lean: float) -> None:
    assert turned(degrees, lean) == []


@pytest.mark.parametrize("degrees", [25, 44, 60, -30, 150])
@pytest.mark.parametrize("lean", [0, 15])
def test_slices_that_are_turned_in_their_plane_are_doubted(degrees: float, lean: float) -> None:
    assert turned(degrees, lean) == ["W_TURNED"]


def turned(degrees: float, lean: float) -> list[str]:
    grid = CanonicalGrid.from_source((64, 64, 8), rotation(lean, degrees) @ LPS_AFFINE)
    return [warning.code for warning in geometry_warnings(grid)]
