"""What is said of the numbers of a scan does not hang on single voxels, nor on what its slices are padded with."""

from typing import Any

import numpy as np
import pytest

from cascade_rt.nifti.gate import Refusal
from cascade_rt.scan_checks import check_content
from tests.broken_scans import HU, rescaled
from tests.volume_files import Array

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
    except Refusal as refusal:
        return [refusal.code]


every_padding = pytest.mark.parametrize("padding", PADDINGS)


@every_padding
def test_a_scan_in_hounsfield_units_passes_whatever_its_padding_is(padding: int | None) -> None:
    assert said_of(padded(HU, padding)) == []


@every_padding
def test_an_offset_is_seen_and_named_whatever_the_padding_is(padding: int | None) -> None:
    voxels = padded(HU + 1024, padding)
    (warning,) = check_content(voxels, (voxels.min(), voxels.max()), assume_hu=False)
    assert warning.code == "W_NOT_HU"
    assert "try --hu-offset -1024" in warning.message


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


def test_attenuation_is_named_with_its_values_and_not_taken_for_an_empty_scan() -> None:
    attenuation = 0.02 * (1 + HU / 1000)
    whole = np.rint(attenuation).astype(np.int16)
    with pytest.raises(Refusal, match=r"its values, -0\.0\d+ to 0\.02\d+, are not Hounsfield units .*attenuation"):
        check_content(whole, (attenuation.min(), attenuation.max()), assume_hu=False)


@pytest.mark.parametrize("options", [{"assume_hu": True}])
def test_nothing_is_judged_where_the_user_vouches_for_it(options: dict[str, Any]) -> None:
    assert check_content((HU + 1024).astype(np.int16), (0, 4000), **options) == ()
