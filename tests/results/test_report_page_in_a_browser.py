"""In a real browser the page shows the scan the right way round, asks for nothing, and finds its lesions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cascade_rt.common.labels import TUMOR_LABEL
from cascade_rt.results.preview import COLORS
from cascade_rt.results.report_page.page import render_page
from cascade_rt.results.report_page.volume_data import coded
from tests.browser import Browser, browser, needs_browser
from tests.report_pages import BRIGHT, LARGE, NASTY, SHAPE, SMALL, SPACING_MM, bright_scan, segmented

pytestmark = needs_browser

Window = tuple[slice, slice, slice]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that shows the page in its axial view, with the larger lesion in the middle."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.html").write_bytes(render_page(segmented(name=NASTY)))
    with browser(folder / "profile", width=1300, height=800) as found:
        found.open(folder / "page.html")
        found.value("document.querySelector('[data-view=axial]').click()")
        yield found


def click(viewer: Browser, selector: str) -> None:
    viewer.value(f"document.querySelector({json.dumps(selector)}).click()")
    viewer.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def middle_of(found: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Middle row and column of what is true."""
    rows, cols = np.nonzero(found)
    return float(np.median(rows)), float(np.median(cols))


def expected_place(window: Window, picture: npt.NDArray[Any]) -> tuple[float, float]:
    """Where the middle of a block lies in a picture of the axial view: patient's right on the left, front on top."""
    height, width, _ = picture.shape
    scale = min(height / (SHAPE[1] * SPACING_MM[1]), width / (SHAPE[2] * SPACING_MM[2]))
    row, col = ((side.start + side.stop) / 2 for side in window[1:])
    return (
        height / 2 + (row - SHAPE[1] / 2) * SPACING_MM[1] * scale,
        width / 2 + (col - SHAPE[2] / 2) * SPACING_MM[2] * scale,
    )


def test_the_viewer_starts_and_nothing_goes_wrong(viewer: Browser) -> None:
    assert (viewer.status()["state"], viewer.complaints()) == ("ready", [])
    assert int(viewer.status()["voxels"]) == np.prod(SHAPE)


def test_nothing_is_asked_for_but_the_page(viewer: Browser) -> None:
    assert [Path(address).name for address in viewer.requests()] == ["page.html"]


def test_no_name_runs(viewer: Browser) -> None:
    assert viewer.value("document.title").startswith(NASTY)


def test_the_mask_lies_where_it_should_with_the_patients_right_on_the_left(viewer: Browser) -> None:
    click(viewer, "tr[data-lesion='1']")
    click(viewer, "[data-mask=fill]")
    picture = viewer.picture("#canvas").astype(int)
    red, green, blue = np.moveaxis(picture, -1, 0)
    place = middle_of((red - green > 40) & (red - blue > 40) & (red < 250))
    assert place == pytest.approx(expected_place(LARGE, picture), abs=8)
    assert place[1] < picture.shape[1] / 2


def test_the_scan_lies_where_it_should(viewer: Browser) -> None:
    click(viewer, "[data-mask=off]")
    picture = viewer.picture("#canvas")
    assert middle_of(picture.min(axis=-1) >= 250) == pytest.approx(expected_place(BRIGHT, picture), abs=8)


def test_r_stands_on_the_left(viewer: Browser) -> None:
    picture = viewer.picture("#canvas").min(axis=-1)
    height, width = picture.shape
    ink = picture[height // 2 - 20 : height // 2 + 20, :25] > 180
    (rows, cols) = np.nonzero(ink)
    # An R has ink in its upper right quarter, an L has none.
    upper = ink[rows.min() : (rows.min() + rows.max()) // 2, (cols.min() + cols.max()) // 2 + 1 : cols.max() + 1]
    assert upper.any()
    ink = picture[height // 2 - 20 : height // 2 + 20, width - 25 :] > 180
    (rows, cols) = np.nonzero(ink)
    upper = ink[rows.min() : (rows.min() + rows.max()) // 2, (cols.min() + cols.max()) // 2 + 1 : cols.max() + 1]
    assert not upper.any()


def test_an_outline_leaves_the_lesion_to_be_seen(viewer: Browser) -> None:
    click(viewer, "tr[data-lesion='1']")
    click(viewer, "[data-mask=outline]")
    picture = viewer.picture("#canvas").astype(int)
    colored = np.abs(picture - COLORS[TUMOR_LABEL]).sum(axis=-1) < 60
    height, width = np.ptp(np.nonzero(colored), axis=1) + 1
    assert 0 < np.count_nonzero(colored) < height * width / 4


@pytest.mark.parametrize(("number", "window"), [(2, SMALL), (1, LARGE)])
def test_a_click_on_a_lesion_goes_to_its_center(viewer: Browser, number: int, window: Window) -> None:
    click(viewer, f"tr[data-lesion='{number}']")
    status = viewer.status()
    index = tuple(round((side.start + side.stop - 1) / 2) for side in window)
    found = int(status["slice"]) - 1, int(status["row"]), int(status["col"])
    assert found == pytest.approx(index, abs=1)
    assert int(status["label"]) == TUMOR_LABEL
    assert int(status["value"]) == coded(bright_scan()[found].astype(np.float32))


def coarse_page() -> bytes:
    """A page too small for the whole scan, which is complete around its only lesion."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[SMALL] = TUMOR_LABEL
    segmentation = segmented(mask=mask)
    sizes = range(len(render_page(segmentation)) + 100_000, 0, -10_000)
    return next(
        page for size in sizes if b"at full resolution around the mask" in (page := render_page(segmentation, size))
    )


def test_a_coarse_scan_is_put_together_again(viewer: Browser, tmp_path: Path) -> None:
    (tmp_path / "small.html").write_bytes(coarse_page())
    viewer.open(tmp_path / "small.html", "#lesion-1")
    status = viewer.status()
    found = int(status["slice"]) - 1, int(status["row"]), int(status["col"])
    assert int(status["value"]) == coded(bright_scan()[found].astype(np.float32))
    assert int(status["voxels"]) == np.prod(SHAPE)


def test_without_webgl_the_picture_stays(viewer: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(render_page(segmented()))
    switch_off = "HTMLCanvasElement.prototype.getContext = () => null;"
    script = viewer.call("Page.addScriptToEvaluateOnNewDocument", source=switch_off)["identifier"]
    viewer.open(tmp_path / "page.html")
    viewer.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    assert viewer.status()["state"] == "failed"
    assert viewer.value("document.querySelector('#picture img').getBoundingClientRect().width > 300")
