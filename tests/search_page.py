"""The search page in a real browser: the system's headless Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
expect = playwright.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs the system's chromium (apt-get install chromium)"
    ),
]


def first_item(page):
    page.wait_for_selector("body:not(.busy) #hits li")
    return page.inner_text("#hits li:first-child .item")


def image_file(path: Path, width=300, height=200, noise=False) -> Path:
    values = np.full((height, width, 3), 200, np.uint8)
    if noise:
        values = np.random.default_rng(0).integers(0, 256, values.shape, np.uint8)
    Image.fromarray(values).save(path)
    return path


def tab_to(page, selector):
    """Presses Tab until an element has the focus, like a user without a mouse."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached with Tab")
