"""The run shared by most tests of the report."""

from __future__ import annotations

import pytest
from report_runs import DOLLARS, NASTY, SILENT, Run, make_dataset, make_run


@pytest.fixture(scope="session")
def nasty_run(tmp_path_factory) -> Run:
    """A run of four verticals: one named like markup, one like a formula, one without answers."""
    directory = tmp_path_factory.mktemp("nasty")
    items = [(f"{NASTY}{number}", NASTY, 3) for number in range(4)]
    items += [(f"dollar{number}", DOLLARS, 3) for number in range(3)]
    items += [(f"bag{number}", "_bags", 4) for number in range(3)]
    items += [(f"hat{number}", SILENT, 1) for number in range(2)]
    return make_run(directory / "run", make_dataset(directory / "data", items))
