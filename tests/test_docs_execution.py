"""The code blocks of the README and of the pages in docs run, from top to bottom.

Blocks after `<!-- executed: own-images -->` run, the README's first, in one directory with
images in `photos/<vertical>/<item>/`, a catalogue, and images to search with.
"""

import contextlib
import itertools
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from docs_blocks import ROOT, all_blocks, blocks_of
from docs_running import PYTHON, enter, execute, lines_of, make_photos, tools_of
from PIL import Image

from apparel_embed.search.index import open_index

EXECUTED = [block for block in all_blocks() if block.executed]
# Binaries that other tests run.
ELSEWHERE = {
    "compare_runs": "runs/test_comparison.py",
    "make_synthetic_dataset": "data/synthetic/test_generate.py",
    "search_groups": "runs/stages/test_grouping.py",
    "train_detector": "runs/stages/test_detector.py",
}


NIGHT = "daily_changes.md"


@contextlib.contextmanager
def a_night():
    """Creates the images and delta of the page, and searches the index until the page has run."""
    (delta,) = (block for block in blocks_of(ROOT / "docs" / NIGHT) if block.language == "csv")
    Path("photos/night.csv").write_text(delta.code)
    changed, new = Path("photos/bag/bag3/0.jpg"), Path("photos/dress/dress8")
    before = changed.read_bytes()
    new.mkdir()
    for number, path in enumerate((changed, new / "0.jpg", new / "1.jpg")):
        noise = np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(noise).save(path)
    sizes, failures, is_done = set(), [], threading.Event()

    def search():
        with open_index("runs/mine/index.db", to_read=True) as index:
            while not is_done.is_set():
                try:
                    version = index.current()
                    hits = index.search(version, np.eye(version.dim)[0], 1000, by_item=False)
                    sizes.add(len(hits))
                except Exception as error:
                    failures.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()
    assert failures == []
    # The night removes five images and adds two; rolling back restores the index.
    full = max(sizes)
    assert sizes == {full, full - 3}
    changed.write_bytes(before)
    shutil.rmtree(new)


def shell_lines(block):
    return [] if block.language else lines_of(block.code)


@pytest.fixture
def user_directory(tmp_path, monkeypatch):
    """The directory of a new user."""
    make_photos(tmp_path)
    enter(tmp_path, monkeypatch)
    images = sorted(Path("photos").rglob("*.jpg"))
    pa.csv.write_csv(pa.table({"image": [str(path) for path in images]}), "catalogue.csv")
    for name in ("dress.jpg", "street.jpg"):
        shutil.copy("photos/dress/dress0/0.jpg", name)
    Image.open("dress.jpg").save("dress.webp")
    return tmp_path


@pytest.mark.slow
def test_marked_blocks_run_from_top_to_bottom(user_directory):
    assert {block.executed for block in EXECUTED} == {"own-images"}
    for page, blocks in itertools.groupby(EXECUTED, key=lambda block: block.page):
        with a_night() if page == NIGHT else contextlib.nullcontext():
            for block in blocks:
                execute(block)
    written = {path.name for path in (user_directory / "runs/mine").iterdir()}
    assert {"report", "saved_model", "sweep", "compression", "index.db"} <= written


def test_every_binary_except_benchmarks_is_run_by_a_block_or_a_test():
    run = {tool for block in EXECUTED for words in shell_lines(block) for tool in tools_of(words)}
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert {tool for tool in tools - run if not tool.startswith("benchmark_")} == set(ELSEWHERE)
    for tool, test in ELSEWHERE.items():
        assert f"{tool}.py" in (ROOT / "tests" / test).read_text("utf-8"), test


def test_command_blocks_that_are_not_executed_repeat_executed_commands():
    run = [words for block in EXECUTED for words in shell_lines(block)]
    left = [words for block in all_blocks() if not block.executed for words in shell_lines(block)]
    assert [words for words in left if words[0] in PYTHON and words not in run] == []
