"""The page in a real browser: drawn, quiet, usable by mouse and keyboard, readable on a phone and in the dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ffnet_deploy.report import write_report
from ffnet_deploy.report.gallery import GalleryOptions
from tests.report.examples import NAMES, example

sync_api = pytest.importorskip("playwright.sync_api")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP, PHONE = (1280, 900), (390, 844)
FIGURES = (
    *("scores", "confusion", "trade-off", "latency", "ratios", "roofline-0", "roofline-1", "roofline-2"),
    *("precision", "sensitivity-2"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser ({', '.join(BROWSERS)}): apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder / "report.html", example(4, (192, 256), GalleryOptions(count=4)))[0]


class Opened:
    """A page with everything it said or asked for."""

    def __init__(self, browser: Any, report: Path, size: tuple[int, int] = DESKTOP, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def pixels(self, element: Any) -> np.ndarray:
        """What is seen of an element, uint8 (height, width, 3)."""
        return cv2.imdecode(np.frombuffer(element.screenshot(), np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_loads_without_a_word_and_without_a_request(
    browser: Any, report: Path, size: tuple[int, int], scheme: str
) -> None:
    with Opened(browser, report, size, color_scheme=scheme, offline=True) as opened:
        assert opened.said == []
        assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
        wide, inner = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= inner == size[0]
        paper, ink = opened.page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        assert (brightness(paper) > brightness(ink)) == (scheme == "light")


def colours(picture: np.ndarray) -> int:
    """Number of colours in a picture."""
    return len(np.unique(picture.astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])))


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour[4:-1].split(","))


@pytest.mark.parametrize(
    ("size", "scheme", "scripts"), [(DESKTOP, "light", False), (DESKTOP, "dark", True), (PHONE, "light", True)]
)
def test_every_figure_is_drawn(browser: Any, report: Path, size: tuple[int, int], scheme: str, scripts: bool) -> None:
    with Opened(browser, report, size, color_scheme=scheme, java_script_enabled=scripts) as opened:
        boxes = opened.page.evaluate(
            """Object.fromEntries([...document.querySelectorAll("figure.chart svg")].filter(svg => svg.getClientRects()
            .length).map(svg => { const box = svg.getBoundingClientRect();
            return [svg.parentElement.id, [box.x, box.y + scrollY, box.width, box.height].map(Math.round)]; }))"""
        )
        seen = cv2.imdecode(np.frombuffer(opened.page.screenshot(full_page=True), np.uint8), cv2.IMREAD_COLOR)
    assert set(boxes) == {f"chart-{name}" for name in FIGURES}
    for name, (x, y, width, height) in boxes.items():
        assert width >= min(size[0] - 40, 340) and height >= 60
        assert x >= 0 and x + width <= size[0]
        picture = seen[y : y + height, x : x + width].astype(int)
        coloured = (picture.max(2) - picture.min(2)) > 60
        assert coloured.mean() > 0.0005, f"{name} shows no colour"
        assert colours(picture) > 20, f"{name} is empty"


def test_text_in_figures_is_legible_and_nothing_sticks_out_at_any_width(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        for width in (320, 390, 659, 661, 1079, 1201, 1600):
            opened.page.set_viewport_size({"width": width, "height": 900})
            smallest, reach = opened.page.evaluate(
                """[Math.min(...[...document.querySelectorAll("figure.chart svg")].filter(svg => svg.getClientRects()
                .length).map(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width * 11)),
                document.documentElement.scrollWidth]"""
            )
            assert smallest >= 8.5, f"{smallest} pixels at {width}"
            assert reach <= width


@pytest.mark.parametrize("scripts", [True, False])
def test_every_picture_is_decoded_at_its_size(browser: Any, report: Path, scripts: bool) -> None:
    with Opened(browser, report, java_script_enabled=scripts) as opened:
        if scripts:
            sizes = opened.page.evaluate(
                "Promise.all([...document.images].map(i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])))"
            )
            assert sizes == [[256, 192]] * 4 * 7
            return
        pictures = opened.page.locator(".panels img")
        assert pictures.count() == 4 * 7
        for index in range(7):
            box = pictures.nth(index).bounding_box()
            assert box["width"] > 200 and box["height"] == pytest.approx(box["width"] * 0.75, abs=1)
            assert colours(opened.pixels(pictures.nth(index))) >= 3


def stage(opened: Opened) -> Any:
    return opened.page.locator(".sample.current .panels")


def halves(opened: Opened) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the stage left and right of its middle, without tags and the handle."""
    picture = opened.pixels(stage(opened))
    middle = picture.shape[1] // 2
    return picture[60:, : middle - 8], picture[60:, middle + 8 :]


def choose(opened: Opened, left: str, right: str) -> None:
    opened.page.select_option("#pick-left", left)
    opened.page.select_option("#pick-right", right)
    opened.page.locator("#pick-strength").fill("100")


def test_the_slider_moves_by_mouse(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        choose(opened, "image", "truth")
        slider = opened.page.locator("#pick-split")
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        seen = {}
        for part in (0.02, 0.5, 0.98):
            opened.page.mouse.click(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
            seen[part] = (int(slider.input_value()), *halves(opened))
        assert seen[0.02][0] < 5 and 45 < seen[0.5][0] < 55 and seen[0.98][0] > 95
        # left of the slider is the image, right of it the label map: each half is one or the other
        assert not np.array_equal(seen[0.02][1], seen[0.98][1])
        assert np.array_equal(seen[0.5][2], seen[0.02][2])
        assert not np.array_equal(seen[0.5][2], seen[0.98][2])


def test_the_line_is_dragged_on_the_picture_itself(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        stage(opened).scroll_into_view_if_needed()
        box = stage(opened).bounding_box()
        opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
        opened.page.mouse.down()
        opened.page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 60, steps=4)
        opened.page.mouse.up()
        assert 77 <= int(opened.page.input_value("#pick-split")) <= 83
        handle = opened.page.locator(".sample.current .handle").bounding_box()
        assert handle["x"] == pytest.approx(box["x"] + box["width"] * 0.8, abs=box["width"] * 0.02)
        opened.page.mouse.move(box["x"] + 5, box["y"] + 60)
        assert int(opened.page.input_value("#pick-split")) > 70


def test_everything_is_reached_and_moved_by_keyboard(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        choose(opened, "image", "truth")
        slider = opened.page.locator("#pick-split")
        before = halves(opened)[0]
        slider.focus()
        for _ in range(40):
            opened.page.keyboard.press("ArrowLeft")
        assert slider.input_value() == "10"
        assert not np.array_equal(before, halves(opened)[0])
        opened.page.keyboard.press("End")
        assert slider.input_value() == "100"
        assert "100 % Image" in slider.get_attribute("aria-valuetext")
        reached = set()
        opened.page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
        for _ in range(80):
            opened.page.keyboard.press("Tab")
            name, seen = opened.page.evaluate(
                """() => { const on = document.activeElement;
                const seen = on === document.body || getComputedStyle(on).outlineStyle !== "none";
                return [on.id || on.className, seen]; }"""
            )
            assert seen, f"the focus on {name} is not seen"
            reached.add(name)
        controls = {"pick-sample", "pick-previous", "pick-next", "pick-left", "pick-right", "pick-strength"}
        assert controls | {"pick-split", "skip", "scroll"} <= reached


def test_samples_are_stepped_through_and_layers_chosen(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        heading = opened.page.locator(".sample:visible h3")
        worst = example(4, (192, 256), GalleryOptions(count=4)).gallery.samples
        names = [sample.name for sample in worst]
        assert heading.all_text_contents() == names[:1]
        opened.page.click("#pick-next")
        assert heading.all_text_contents() == names[1:2]
        opened.page.click("#pick-previous")
        opened.page.click("#pick-previous")
        assert heading.all_text_contents() == names[3:]
        choose(opened, "labels-0", "difference-2")
        tags = opened.page.locator(".sample.current .tag")
        assert tags.all_text_contents() == [NAMES[0], f"Difference of {NAMES[2]} to {NAMES[0]}"]
        choose(opened, "labels-1", "labels-1")
        whole = opened.pixels(stage(opened))[60:]
        assert colours(whole) >= 3
        opened.page.locator("#pick-strength").fill("0")
        assert not np.array_equal(whole, opened.pixels(stage(opened))[60:])


def test_without_scripts_all_panels_lie_side_by_side(browser: Any, report: Path) -> None:
    with Opened(browser, report, java_script_enabled=False) as opened:
        assert opened.page.locator(".panels figure:visible").count() == 4 * 7
        assert opened.page.locator("#gallery-controls:visible").count() == 0


def test_print_shows_all_panels_all_tables_and_no_controls(browser: Any, report: Path) -> None:
    with Opened(browser, report, color_scheme="dark") as opened:
        opened.page.emulate_media(media="print", color_scheme="dark")
        assert opened.page.locator(".panels figure:visible").count() == 4 * 7
        assert opened.page.locator("form:visible, nav:visible, .below:visible").count() == 0
        for table in opened.page.locator("details table").all():
            assert table.bounding_box()["height"] > 40
        paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert brightness(paper) > 700
        assert len(opened.page.pdf()) > 50_000


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")])
def test_axe_finds_no_fault(browser: Any, report: Path, size: tuple[int, int], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with Opened(browser, report, size, color_scheme=scheme) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        found = axe.Axe().run(opened.page).response["violations"]
        assert [(one["id"], one["impact"], one["nodes"][0]["html"][:120]) for one in found] == []


def test_motion_is_left_out_for_those_who_ask(browser: Any, report: Path) -> None:
    with Opened(browser, report, reduced_motion="reduce") as opened:
        assert opened.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
