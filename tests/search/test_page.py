"""The page in a real browser: the Chromium of the system, headless."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from search_page import MARKS, expect, first_item, image_file, tab_to

from apparel_embed.search.config import Limits
from apparel_embed.search.server import make_service

pytestmark = MARKS


def wait_for_image(page):
    # With evaluate, since the page's security policy forbids Playwright's wait_for_function.
    end = time.monotonic() + 20
    while not page.evaluate("document.querySelector('#hits img').naturalWidth"):
        assert time.monotonic() < end, "no image is shown"
        time.sleep(0.05)


def verticals_shown(page):
    return {one.inner_text() for one in page.query_selector_all("#hits .facts span:first-child")}


def search_box(address, image, box):
    """Returns the service's hits for a box, requested without a browser."""
    files = {"file": Path(image).read_bytes()}
    return httpx.post(f"{address}/api/search", files=files, data={"box": box}).json()["hits"]


def test_a_held_out_street_image_finds_its_item_and_the_vertical_can_be_changed(page, street):
    image, item = street["bag"]
    page.set_input_files("#file", image)

    first_item(page)
    assert "in all kinds (the model predicts bag, 88.1%" in page.inner_text("#status")
    page.select_option("#vertical", label="Predicted kind")
    expect(page.locator("#status")).to_contain_text("in bag (predicted, 88%)")
    assert first_item(page) == item
    assert page.inner_text("#predicted").startswith("Predicted: bag 88 %")
    wait_for_image(page)

    page.select_option("#vertical", label="dress")
    expect(page.locator("#status")).to_contain_text("in dress")
    assert verticals_shown(page) == {"dress"}
    page.select_option("#vertical", label="All kinds")
    expect(page.locator("#status")).to_contain_text("all kinds (as requested)")


def test_several_images_of_one_garment_are_searched_together(page, address, clearest):
    images = [image for image, _ in clearest["dress"][:2]]
    page.set_input_files("#file", images)
    shown = first_item(page)
    expect(page.locator("#found")).to_contain_text("2 images of one garment")
    files = [("file", Path(image).read_bytes()) for image in images]
    assert httpx.post(f"{address}/api/search", files=files).json()["hits"][0]["item"] == shown

    page.set_input_files("#file", [images[0]] * 9)
    expect(page.locator("#error")).to_contain_text("at most 8 images of one garment")


def test_a_drawn_box_is_searched(page, address, street, tmp_path):
    canvas = Image.new("RGB", (400, 200), "white")
    garment = Image.open(street["bag"][0]).convert("RGB").resize((120, 120))
    canvas.paste(garment, (240, 40))
    canvas.save(tmp_path / "scene.png")
    page.set_input_files("#file", tmp_path / "scene.png")
    first_item(page)
    frame = page.locator("#image").bounding_box()
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
        page.click("#whole")
    assert page.locator("#box").is_hidden()


def test_bad_and_too_large_files_show_errors_and_the_next_one_works(page, street, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"this is not an image")
    page.set_input_files("#file", tmp_path / "bad.jpg")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "Not an image, or of an unknown format."
    assert page.get_attribute("#error", "role") == "alert"

    page.set_input_files("#file", image_file(tmp_path / "large.png", noise=True, height=400))
    expect(page.locator("#error")).to_contain_text("MB")
    assert page.inner_text("#error") == "This image has 0.4 MB; expected at most 0.2 MB."

    image, item = street["bag"]
    page.set_input_files("#file", image)
    assert first_item(page) == item
    assert page.locator("#error").is_hidden()


def test_everything_works_with_the_keyboard(page, address, street):
    image, item = street["bag"]
    tab_to(page, "#file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(image)
    assert first_item(page) == item

    tab_to(page, "summary")
    page.keyboard.press("Enter")
    for edge, value in (("left", "4"), ("top", "4"), ("right", "60"), ("bottom", "60")):
        tab_to(page, f"#{edge}")
        page.keyboard.type(value)
    tab_to(page, "#use-box")
    with page.expect_response("**/api/search") as response:
        page.keyboard.press("Enter")
    assert response.value.json()["hits"] == search_box(address, image, "4,4,60,60")

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


def test_an_example_and_then_a_hit_can_be_searched(page):
    page.click("#examples button >> nth=0")
    first_item(page)
    with page.expect_response("**/api/similar*"):
        page.click("#hits li:nth-child(2) button")
    first_item(page)
    assert page.locator("#image").get_attribute("src").startswith("http")


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


def test_the_page_asks_for_a_required_key(browser, served, service, street):
    page = browser.new_page()
    page.goto(served(service(api_key="sesame")))
    page.fill("#key", "wrong")
    page.click("text=Use it")
    page.wait_for_selector("text=This API key is wrong.")
    page.fill("#key", "sesame")
    page.click("text=Use it")
    page.wait_for_selector("#key-form", state="hidden")
    image, item = street["bag"]
    page.set_input_files("#file", image)
    assert first_item(page) == item
    wait_for_image(page)
    page.close()


def test_the_page_shows_whether_it_is_the_same_item(browser, served, catalogue, judging, street):
    address = served(make_service(catalogue.index, judging(), Limits(rate=0)))
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("#vertical option >> nth=0", state="attached")
    verdict = page.locator("#verdict")
    expect(verdict).to_be_empty()
    # There is no threshold for a search in all verticals.
    page.set_input_files("#file", street["bag"][0])
    expect(page.locator("#status")).to_contain_text("in all kinds")
    expect(verdict).to_be_empty()
    page.select_option("#vertical", label="dress")
    expect(verdict).to_have_text("Similar only: no image is close enough to be this garment.")
    page.select_option("#vertical", label="bag")
    expect(verdict).to_have_text("Same item: the nearest image is close enough to be this garment.")
    assert verdict.get_attribute("role") == "status"
    page.close()
