"""The page in a real browser: the system's Chromium, headless."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from detecting_model import scene_of
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs the system's chromium (apt-get install chromium)"
    ),
]


@pytest.fixture(scope="module")
def served():
    """Serves applications on free ports until the module's tests are done."""
    servers = []

    def start(app) -> str:
        config = uvicorn.Config(app, port=0, log_level="error", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.02)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def address(served, service):
    return served(service())


@pytest.fixture(scope="module")
def detecting_address(served, detecting):
    return served(detecting())


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that containers do not give.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def watched(browser, address):
    """Yields a page that must have said nothing on its console by its end."""
    opened = browser.new_page()
    opened.set_default_timeout(20_000)
    said = []
    # Asked for early: a chooser that opens before someone listens is lost.
    opened.on("filechooser", lambda chooser: None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("console", lambda message: said.append(message.text))
    opened.goto(address)
    opened.wait_for_selector("#vertical option >> nth=0", state="attached")
    yield opened
    opened.close()
    # The browser reports refused uploads by itself.
    assert [line for line in said if "Failed to load resource" not in line] == []


@pytest.fixture
def page(browser, address):
    yield from watched(browser, address)


@pytest.fixture
def detecting_page(browser, detecting_address):
    yield from watched(browser, detecting_address)


@pytest.fixture(scope="module")
def street(clearest):
    """The clearest street picture of each vertical, and its item."""
    return {vertical: pictures[0] for vertical, pictures in clearest.items()}


def first_item(page):
    page.wait_for_selector("body:not(.busy) #hits li")
    return page.inner_text("#hits li:first-child .item")


def wait_for_picture(page):
    # By evaluate: the page's policy forbids what Playwright's own waiting for a function needs.
    end = time.monotonic() + 20
    while not page.evaluate("document.querySelector('#hits img').naturalWidth"):
        assert time.monotonic() < end, "no picture is shown"
        time.sleep(0.05)


def verticals_shown(page):
    return {one.inner_text() for one in page.query_selector_all("#hits .facts span:first-child")}


def search_box(address, picture, box):
    """Returns the hits that the service gives for a box, asked without a browser."""
    files = {"file": Path(picture).read_bytes()}
    return httpx.post(f"{address}/api/search", files=files, data={"box": box}).json()["hits"]


def picture_file(path: Path, width=300, height=200, noise=False) -> Path:
    values = np.full((height, width, 3), 200, np.uint8)
    if noise:
        values = np.random.default_rng(0).integers(0, 256, values.shape, np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_a_held_out_street_picture_finds_its_item_and_the_vertical_can_be_changed(page, street):
    picture, item = street["bag"]
    page.set_input_files("#file", picture)

    first_item(page)
    assert "in all kinds (the model sees bag, 88.1%" in page.inner_text("#status")
    page.select_option("#vertical", label="As the model sees it")
    expect(page.locator("#status")).to_contain_text("in bag (predicted, 88%)")
    assert first_item(page) == item
    assert page.inner_text("#predicted").startswith("The model sees: bag 88 %")
    wait_for_picture(page)

    page.select_option("#vertical", label="dress")
    expect(page.locator("#status")).to_contain_text("in dress")
    assert verticals_shown(page) == {"dress"}
    page.select_option("#vertical", label="All kinds")
    expect(page.locator("#status")).to_contain_text("all kinds (as asked)")


def test_a_box_that_is_drawn_is_what_is_searched(page, address, street, tmp_path):
    canvas = Image.new("RGB", (400, 200), "white")
    garment = Image.open(street["bag"][0]).convert("RGB").resize((120, 120))
    canvas.paste(garment, (240, 40))
    canvas.save(tmp_path / "scene.png")
    page.set_input_files("#file", tmp_path / "scene.png")
    first_item(page)
    frame = page.locator("#picture").bounding_box()
    scale = frame["width"] / 400

    with page.expect_response("**/api/search") as response:
        page.mouse.move(frame["x"] + 360 * scale, frame["y"] + 160 * scale)
        page.mouse.down()
        page.mouse.move(frame["x"] + 300 * scale, frame["y"] + 100 * scale)
        page.mouse.move(frame["x"] + 240 * scale, frame["y"] + 40 * scale)
        page.mouse.up()

    drawn = [float(page.input_value(f"#{edge}")) for edge in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(drawn, [240, 40, 360, 160], atol=3)
    exact = search_box(address, tmp_path / "scene.png", "240,40,360,160")
    assert response.value.json()["hits"][0]["item"] == exact[0]["item"]

    with page.expect_response("**/api/search"):
        page.click("text=Whole picture")
    assert page.locator("#box").is_hidden()


def test_a_bad_and_a_too_large_file_are_told_and_the_next_one_works(page, street, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"this is no picture")
    page.set_input_files("#file", tmp_path / "bad.jpg")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "Not a picture, or of an unknown format."
    assert page.get_attribute("#error", "role") == "alert"

    page.set_input_files("#file", picture_file(tmp_path / "large.png", noise=True, height=400))
    expect(page.locator("#error")).to_contain_text("MB")
    assert page.inner_text("#error") == "This picture has 0.4 MB; expected at most 0.2 MB."

    picture, item = street["bag"]
    page.set_input_files("#file", picture)
    assert first_item(page) == item
    assert page.locator("#error").is_hidden()


def tab_to(page, selector):
    """Goes on by Tab until an element has the focus, as one does without a mouse."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by Tab")


def test_everything_can_be_done_by_keyboard(page, address, street):
    picture, item = street["bag"]
    tab_to(page, "#file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(picture)
    assert first_item(page) == item

    tab_to(page, "summary")
    page.keyboard.press("Enter")
    for edge, value in (("left", "4"), ("top", "4"), ("right", "60"), ("bottom", "60")):
        tab_to(page, f"#{edge}")
        page.keyboard.type(value)
    tab_to(page, "#use-box")
    with page.expect_response("**/api/search") as response:
        page.keyboard.press("Enter")
    assert response.value.json()["hits"] == search_box(address, picture, "4,4,60,60")

    tab_to(page, "#vertical")
    with page.expect_response("**/api/search"):
        page.keyboard.press("d")  # dress
    expect(page.locator("#status")).to_contain_text("in dress")

    tab_to(page, "#hits li:first-child button")
    searched_with = first_item(page)
    with page.expect_response("**/api/similar*") as response:
        page.keyboard.press("Enter")
    first_item(page)
    assert response.value.status == 200
    assert page.evaluate("document.activeElement.id") == "results"
    assert searched_with


def test_an_example_is_searched_and_a_hit_searches_on(page):
    page.click("#examples button >> nth=0")
    first_item(page)
    with page.expect_response("**/api/similar*"):
        page.click("#hits li:nth-child(2) button")
    first_item(page)
    assert page.locator("#picture").get_attribute("src").startswith("http")


def test_everything_has_a_name_for_screen_readers_and_fits_a_phone(page, street):
    page.set_viewport_size({"width": 360, "height": 740})
    page.set_input_files("#file", street["bag"][0])
    first_item(page)

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, img')]
        .filter((e) => !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label')
          || e.hasAttribute('alt') || e.querySelector('img[alt]')))
        .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.get_attribute("#status", "aria-live") == "polite"
    assert page.get_attribute("html", "lang") == "en"


def test_with_a_key_the_page_asks_for_it(browser, served, service, street):
    page = browser.new_page()
    page.goto(served(service(api_key="sesame")))
    page.fill("#key", "wrong")
    page.click("text=Use it")
    page.wait_for_selector("text=This key is not the right one.")
    page.fill("#key", "sesame")
    page.click("text=Use it")
    page.wait_for_selector("#key-form", state="hidden")
    picture, item = street["bag"]
    page.set_input_files("#file", picture)
    assert first_item(page) == item
    wait_for_picture(page)
    page.close()


@pytest.fixture
def photograph(scene, tmp_path):
    """File of a photograph of four garments, and the item of each."""
    path = tmp_path / "street.png"
    path.write_bytes(scene[0])
    return path, scene[1]


def garments(page):
    expect(page.locator("#found")).to_contain_text("found")
    return page.locator(".garment")


def test_each_garment_of_a_photograph_is_clicked_and_its_item_found(detecting_page, photograph):
    page, (path, items) = detecting_page, photograph
    page.set_input_files("#file", path)
    found = garments(page)
    expect(found).to_have_count(4)
    assert page.inner_text("#found") == "4 garments found: bag, bag, dress, dress"
    assert page.locator("#hits li").count() == 0

    shown = []
    for number in range(4):
        with page.expect_response("**/api/search") as response:
            found.nth(number).click()
        first_item(page)
        vertical = ("bag", "bag", "dress", "dress")[number]
        expect(page.locator("#status")).to_contain_text(f"in {vertical} (as asked)")
        assert found.nth(number).get_attribute("aria-current") == "true"
        assert page.locator(".garment[aria-current]").count() == 1
        assert response.value.json()["hits"][0]["item"] == first_item(page)
        shown.append(first_item(page))
    assert shown == items
    typed = [page.input_value(f"#{edge}") for edge in ("left", "top", "right", "bottom")]
    assert typed == ["228", "228", "348", "348"]
    frames = [page.locator(one).bounding_box() for one in ("#box", ".garment >> nth=3")]
    assert frames[0] == pytest.approx(frames[1], abs=1)


def test_a_box_may_be_drawn_on_garments_and_is_searched_in_all_kinds(detecting_page, photograph):
    page, (path, items) = detecting_page, photograph
    page.set_input_files("#file", path)
    garments(page).nth(0).click()
    assert first_item(page) == items[0]
    assert page.input_value("#vertical") == "=bag"

    frame = page.locator("#picture").bounding_box()
    scale = frame["width"] / 384
    with page.expect_response("**/api/search") as response:
        page.mouse.move(frame["x"] + 60 * scale, frame["y"] + 240 * scale)  # On a dress.
        page.mouse.down()
        page.mouse.move(frame["x"] + 100 * scale, frame["y"] + 300 * scale)
        page.mouse.move(frame["x"] + 140 * scale, frame["y"] + 340 * scale)
        page.mouse.up()
    assert page.evaluate("document.querySelectorAll('.garment[aria-current]').length") == 0
    drawn = [float(page.input_value(f"#{edge}")) for edge in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(drawn, [60, 240, 140, 340], atol=4)
    assert response.value.json()["vertical"] is None
    expect(page.locator("#status")).to_contain_text("in all kinds")

    with page.expect_response("**/api/search"):
        page.click("text=Whole picture")
    assert page.locator("#box").is_hidden()
    assert garments(page).count() == 4


def test_garments_are_reached_and_searched_by_keyboard(detecting_page, photograph):
    page, (path, items) = detecting_page, photograph
    tab_to(page, "#file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(path)
    expect(garments(page)).to_have_count(4)

    for key, tabs, item in (("Enter", 1, items[0]), ("Space", 3, items[3])):
        for _ in range(tabs):
            tab_to(page, ".garment")
        with page.expect_response("**/api/search"):
            page.keyboard.press(key)
        assert first_item(page) == item


def test_garments_are_announced_by_name_and_fit_a_phone(detecting_page, photograph):
    page, (path, _) = detecting_page, photograph
    page.set_viewport_size({"width": 360, "height": 740})
    page.set_input_files("#file", path)

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert garments(page).nth(0).get_attribute("aria-label") == "bag, 93 %, search this garment"
    found = page.get_by_role("group", name="Garments found").get_by_role("button")
    assert found.count() == 4
    assert page.locator("#found").get_attribute("role") == "status"
    assert page.locator("#found").get_attribute("aria-live") == "polite"


def test_an_image_without_a_garment_says_so_and_the_next_is_searched(
    detecting_page, photograph, street, tmp_path
):
    page, (path, _) = detecting_page, photograph
    page.set_input_files("#file", path)
    garments(page).nth(2).click()
    first_item(page)
    page.set_input_files("#file", picture_file(tmp_path / "blank.png"))

    expect(page.locator("#found")).to_have_text(
        "No garment found: draw a box, or search the whole image."
    )
    assert page.locator(".garment").count() == page.locator("#hits li").count() == 0
    with page.expect_response("**/api/search"):
        page.click("text=Whole picture")
    first_item(page)
    # An example shows one garment, and is searched at once; in the kind that the user chose.
    with page.expect_response("**/api/search"):
        page.click("#examples button >> nth=0")
    expect(page.locator("#status")).to_contain_text("in all kinds")
    assert page.inner_text("#found") == ""


def test_a_single_garment_is_searched_at_once(detecting_page, clearest, tmp_path):
    picture, item = clearest["bag"][0]
    (tmp_path / "one.png").write_bytes(scene_of([picture]))
    detecting_page.set_input_files("#file", tmp_path / "one.png")

    assert first_item(detecting_page) == item
    assert detecting_page.inner_text("#found") == "1 garment found: bag"


def test_garments_of_an_image_that_the_browser_cannot_show_are_listed(
    detecting_page, photograph, tmp_path
):
    page, (path, items) = detecting_page, photograph
    Image.open(path).save(tmp_path / "street.tiff", compression="tiff_deflate")
    page.set_input_files("#file", tmp_path / "street.tiff")
    expect(garments(page)).to_have_count(4)
    assert page.locator("#picture").is_hidden()

    with page.expect_response("**/api/search"):
        garments(page).nth(3).click()
    assert first_item(page) == items[3]


def test_a_file_that_is_no_image_is_told_by_the_detection(detecting_page, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"this is no image")
    detecting_page.set_input_files("#file", tmp_path / "bad.jpg")

    detecting_page.wait_for_selector("#error:not([hidden])")
    assert detecting_page.inner_text("#error") == "Not a picture, or of an unknown format."
    assert detecting_page.inner_text("#found") == ""
