"""The garments of a photograph on the page, in a real browser."""

from __future__ import annotations

import numpy as np
import pytest
from detecting_model import scene_of
from PIL import Image
from search_page import MARKS, expect, first_item, image_file, tab_to

pytestmark = MARKS


@pytest.fixture
def photograph(scene, tmp_path):
    """The file of a photograph of four garments, and the item of each."""
    path = tmp_path / "street.png"
    path.write_bytes(scene[0])
    return path, scene[1]


def garments(page):
    expect(page.locator("#found")).to_contain_text("found")
    return page.locator(".garment")


def test_clicking_a_garment_finds_its_item(detecting_page, photograph):
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
        expect(page.locator("#status")).to_contain_text(f"in {vertical} (as requested)")
        assert found.nth(number).get_attribute("aria-current") == "true"
        assert page.locator(".garment[aria-current]").count() == 1
        assert response.value.json()["hits"][0]["item"] == first_item(page)
        shown.append(first_item(page))
    assert shown == items
    typed = [page.input_value(f"#{edge}") for edge in ("left", "top", "right", "bottom")]
    assert typed == ["228", "228", "348", "348"]
    frames = [page.locator(one).bounding_box() for one in ("#box", ".garment >> nth=3")]
    assert frames[0] == pytest.approx(frames[1], abs=1)


def test_a_box_drawn_over_garments_is_searched_in_all_kinds(detecting_page, photograph):
    page, (path, items) = detecting_page, photograph
    page.set_input_files("#file", path)
    garments(page).nth(0).click()
    assert first_item(page) == items[0]
    assert page.input_value("#vertical") == "=bag"

    frame = page.locator("#image").bounding_box()
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
        page.click("#whole")
    assert page.locator("#box").is_hidden()
    assert garments(page).count() == 4


def test_garments_can_be_searched_with_the_keyboard(detecting_page, photograph):
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


def test_an_image_without_a_garment_gives_a_message_and_the_next_is_searched(
    detecting_page, photograph, street, tmp_path
):
    page, (path, _) = detecting_page, photograph
    page.set_input_files("#file", path)
    garments(page).nth(2).click()
    first_item(page)
    page.set_input_files("#file", image_file(tmp_path / "blank.png"))

    expect(page.locator("#found")).to_have_text(
        "No garment found. Draw a box, or search the whole image."
    )
    assert page.locator(".garment").count() == page.locator("#hits li").count() == 0
    with page.expect_response("**/api/search"):
        page.click("#whole")
    first_item(page)
    # An example shows one garment, and is searched at once in the kind that the user chose.
    with page.expect_response("**/api/search"):
        page.click("#examples button >> nth=0")
    expect(page.locator("#status")).to_contain_text("in all kinds")
    assert page.inner_text("#found") == ""


def test_a_single_garment_is_searched_at_once(detecting_page, clearest, tmp_path):
    image, item = clearest["bag"][0]
    (tmp_path / "one.png").write_bytes(scene_of([image]))
    detecting_page.set_input_files("#file", tmp_path / "one.png")

    assert first_item(detecting_page) == item
    assert detecting_page.inner_text("#found") == "1 garment found: bag"


def test_garments_are_listed_if_the_browser_cannot_show_the_image(
    detecting_page, photograph, tmp_path
):
    page, (path, items) = detecting_page, photograph
    Image.open(path).save(tmp_path / "street.tiff", compression="tiff_deflate")
    page.set_input_files("#file", tmp_path / "street.tiff")
    expect(garments(page)).to_have_count(4)
    assert page.locator("#image").is_hidden()

    with page.expect_response("**/api/search"):
        garments(page).nth(3).click()
    assert first_item(page) == items[3]


def test_a_file_that_is_not_an_image_shows_an_error(detecting_page, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"this is not an image")
    detecting_page.set_input_files("#file", tmp_path / "bad.jpg")

    detecting_page.wait_for_selector("#error:not([hidden])")
    assert detecting_page.inner_text("#error") == "Not an image, or of an unknown format."
    assert detecting_page.inner_text("#found") == ""
