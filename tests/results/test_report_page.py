"""A report page holds what it should, at the size it should have, and nothing that a name could smuggle in."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import cascade_rt
from cascade_rt.errors import InputWarning
from cascade_rt.results.report_page.page import _resolution, render_page
from cascade_rt.results.report_page.volume_data import PageVolume, coded, page_volume
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.scans.volume import Volume
from tests.report_pages import NASTY, SHAPE, bright_scan, mask_with_lesions, segmented

PLENTY = 10_000_000
LIBRARY_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of dist/niivue.umd.js in @niivue/niivue 0.69.0, as npm has it."""
ASSETS = Path(cascade_rt.__file__).parent / "assets" / "niivue"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and what scripts hold."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script":
            self.scripts.append(data)


def text_of(page: bytes) -> str:
    """What a reader sees: without scripts, styles and tags."""
    shown = re.sub(r"(?s)<(script|style).*?</\1>", "", page.decode())
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", shown))


def settings_of(page: bytes) -> dict[str, Any]:
    found = re.search(r'id="settings">(.*?)</script>', page.decode())
    assert found
    settings: dict[str, Any] = json.loads(found[1])
    return settings


def images(segmentation: Segmentation, most_bytes: int = PLENTY, **options: int) -> PageVolume:
    found = page_volume(segmentation.volume, segmentation.mask, most_bytes, 12, **options)
    assert found is not None
    return found


# What it says


def test_the_numbers_of_the_report_are_there() -> None:
    page = text_of(render_page(segmented()))
    for text in ("Pancreas and tumor", "Lesions: 2", "5.67 ml", "0.97 ml", "onnxruntime 1.27", "a" * 64, "case_7"):
        assert text.lower() in page.lower()


def test_warnings_have_their_code_and_their_sentence() -> None:
    page = text_of(render_page(segmented(warnings=(InputWarning("W_SHEAR", "the axes are <not> square"),))))
    assert "W_SHEAR" in page
    assert escape("the axes are <not> square") in page


def test_it_says_that_it_is_not_for_diagnosis() -> None:
    assert "For research only. Not for diagnosis." in text_of(render_page(segmented()))


def test_the_same_segmentation_gives_the_same_page_whenever_it_was_made() -> None:
    assert render_page(segmented()) == render_page(segmented().with_timings({"stage1": 5.0}, 9.0))


def test_scattered_slices_are_shown_in_their_own_plane_only() -> None:
    assert settings_of(render_page(segmented(scattered=True)))["views"] == ["axial"]


def test_of_fewer_slices_than_the_scan_has_it_does_not_say_that_they_are_complete() -> None:
    parts = tuple(images(segmented(), 1000).parts)
    found = PageVolume(slice(2, 9), b"", parts, b"")
    sentence = _resolution(found, 24)
    assert "Only slices 3 to 9 of 24 are shown" in sentence
    assert "slices and the mask are complete" not in sentence
    assert "slices and the mask are complete" in _resolution(replace(found, slices=slice(0, 24)), 24)


def test_a_hollow_lesion_is_found_at_its_tumor_not_in_its_middle() -> None:
    _, row, col = np.indices(SHAPE)
    away = np.hypot(row - 40, col - 48)
    mask = ((away > 14) & (away < 20) & (col < 58)).astype(np.uint8) * 2
    mask[:8], mask[14:] = 0, 0
    (right, anterior, superior), *_ = settings_of(render_page(segmented(mask=mask)))["lesions"]
    place = (superior, 1 - anterior, 1 - right)
    found = tuple(int(fraction * side) for fraction, side in zip(place, SHAPE, strict=True))
    assert mask[found] == 2


# What it may do


def test_the_library_is_the_published_one_and_has_its_licence() -> None:
    library = gzip.decompress((ASSETS / "niivue.umd.js.gz").read_bytes())
    assert hashlib.sha256(library).hexdigest() == LIBRARY_SHA256
    licence = (ASSETS / "LICENSE.txt").read_text(encoding="utf-8")
    assert LIBRARY_SHA256 in licence
    assert "BSD 2-Clause License" in licence


def test_no_name_becomes_an_element_or_a_script() -> None:
    plain, nasty = (
        Elements(render_page(segmented(name=name, warnings=(InputWarning("W_X", name),)))) for name in ("case", NASTY)
    )
    assert [tag for tag, _ in nasty.found] == [tag for tag, _ in plain.found]


def test_a_name_that_looks_like_a_marker_stays_as_it_is() -> None:
    assert "{{policy}}" in text_of(render_page(segmented(name="{{policy}}")))


def test_only_the_two_scripts_of_the_package_may_run_and_nothing_is_fetched() -> None:
    elements = Elements(render_page(segmented()))
    (policy,) = [attributes["content"] for tag, attributes in elements.found if "http-equiv" in attributes]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    hashes = [base64.b64decode(each.strip("'").removeprefix("sha256-")) for each in rules.pop("script-src").split()]
    runs = [script for script in elements.scripts if script.lstrip().startswith('"use strict"')]
    assert hashes == [bytes.fromhex(LIBRARY_SHA256), hashlib.sha256(runs[0].encode()).digest()]
    assert set(rules) == {"style-src", "img-src", "base-uri", "form-action"}
    assert rules["img-src"] == "data: blob:"


def test_no_element_names_an_address() -> None:
    attributes = [value or "" for _, found in Elements(render_page(segmented())).found for value in found.values()]
    assert [value for value in attributes if re.match(r"(?i)\s*(https?:|//|file:|ftp:)", value)] == []


# Its voxels


def test_a_small_scan_is_kept_as_it_is() -> None:
    (whole,) = images(segmented()).parts
    assert whole.factor == 1
    kept = np.frombuffer(gzip.decompress(whole.content), np.uint8).reshape(SHAPE)
    assert np.array_equal(kept, coded(bright_scan().astype(np.float32)))


@pytest.mark.parametrize(("hu", "code"), [(-3000, 0), (-160, 0), (240, 255), (3000, 255)])
def test_values_beyond_the_window_are_its_ends(hu: int, code: int) -> None:
    assert coded(np.float32([hu])).tolist() == [code]


def test_values_are_hounsfield_units_within_a_step() -> None:
    found = images(segmented())
    header = nib.Nifti1Header(found.header[:348])
    values = (
        np.frombuffer(gzip.decompress(found.parts[0].content), np.uint8) * header["scl_slope"] + header["scl_inter"]
    )
    assert np.abs(values.reshape(SHAPE) - bright_scan()).max() <= 400 / 255 / 2 + 1e-3


def test_the_mask_is_complete_and_lies_where_it_did() -> None:
    segmentation = segmented()
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(images(segmentation).mask))
    assert np.array_equal(np.asarray(mask.dataobj).T, segmentation.mask)
    assert np.allclose(mask.affine, segmentation.volume.affine[:, [2, 1, 0, 3]])


def test_a_scan_that_does_not_fit_is_coarse_far_from_the_mask_and_complete_around_it() -> None:
    segmentation = segmented(mask=np.where(np.indices(SHAPE)[2] < 30, mask_with_lesions(), 0).astype(np.uint8))
    whole = len(images(segmentation).parts[0].content)
    outside, inside = images(segmentation, whole * 9 // 10).parts
    assert (outside.factor > 1, inside.factor) == (True, 1)
    window = tuple(slice(start, start + size) for start, size in zip(inside.start, inside.size, strict=True))
    kept = np.frombuffer(gzip.decompress(inside.content), np.uint8).reshape(inside.size)
    assert np.array_equal(kept, coded(bright_scan()[window].astype(np.float32)))
    assert np.all(segmentation.mask[window].sum() == segmentation.mask.sum())


def test_a_coarse_pixel_is_the_mean_of_those_it_stands_for() -> None:
    hu = np.random.default_rng(0).integers(-160, 240, SHAPE).astype(np.int16)
    (part,) = images(segmented(hu, np.zeros(SHAPE, np.uint8)), 80_000).parts
    means = hu.reshape(SHAPE[0], SHAPE[1] // 2, 2, SHAPE[2] // 2, 2).mean(axis=(2, 4), dtype=np.float32)
    assert part.factor == 2
    assert gzip.decompress(part.content) == coded(means).tobytes()


def test_a_page_stays_below_its_size_if_that_is_possible() -> None:
    noise = np.random.default_rng(0).integers(-160, 240, (60, 512, 512)).astype(np.int16)
    mask = np.zeros(noise.shape, dtype=np.uint8)
    mask[20:40, 200:300, 150:300] = 1
    page = render_page(segmented(noise, mask), 6_000_000)
    assert len(page) <= 6_000_000
    assert "To keep the page small" in text_of(page)


def test_of_too_many_slices_those_around_the_middle_are_shown() -> None:
    segmentation = segmented()
    found = images(segmentation, most_voxels=10 * SHAPE[1] * SHAPE[2])
    assert (found.slices.start, found.slices.stop) == (7, 17)
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(found.mask))
    assert np.array_equal(np.asarray(mask.dataobj).T, segmentation.mask[7:17])
    assert np.allclose(mask.affine[:3, 3], segmentation.volume.affine[:3] @ [7, 0, 0, 1])


def test_slices_too_large_for_a_browser_leave_a_picture() -> None:
    volume = Volume.from_array(np.zeros((3000, 4, 2), np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert page_volume(volume, np.zeros((2, 4, 3000), np.uint8), PLENTY, 0) is None
