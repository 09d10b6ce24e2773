import io
import logging
import sys

import pytest

from apparel_embed.common import progress
from apparel_embed.common.progress import progress_bar


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_lines_with_the_time_left_are_logged(caplog, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 1e-9)
    with (
        caplog.at_level(logging.INFO),
        progress_bar(total=1200, what="views", unit="images") as bar,
    ):
        bar.update(600)
    first, *rest = caplog.messages
    assert first.startswith("views: 600 of 1200 images in 00:0")
    assert " left" in first and "\r" not in first
    assert all(line.startswith("views: 600 of 1200") for line in rest)
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("kind", [io.StringIO, _Terminal])
def test_short_work_with_a_delay_shows_nothing(caplog, monkeypatch, kind):
    monkeypatch.setattr(sys, "stderr", kind())
    with caplog.at_level(logging.INFO):
        assert list(progress_bar(range(3), what="search", unit="queries", delay=5)) == [0, 1, 2]
    assert not caplog.messages
    assert sys.stderr.getvalue().strip() == ""


def test_a_terminal_shows_a_bar(caplog, monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    with caplog.at_level(logging.INFO):
        assert list(progress_bar(range(3), what="drawing", unit="images")) == [0, 1, 2]
    assert "drawing: 100%" in sys.stderr.getvalue() and not caplog.messages
