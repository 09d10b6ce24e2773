"""Flags that benchmarks share, and how they end."""

from __future__ import annotations

import json
from typing import Any

from absl import flags

from apparel_embed.cli.define import define_seed


class BenchmarkFlags:
    """Seed, and whether figures are printed for programs too.

    Args:
      seeded: what the seed decides; "" for a benchmark without one.
    """

    def __init__(self, seeded: str = "") -> None:
        self._seed = define_seed(seeded) if seeded else None
        self._json = flags.DEFINE_bool("json", False, "print one JSON object on the last line")

    @property
    def seed(self) -> int:
        """Seed of what is measured with."""
        return 0 if self._seed is None else self._seed.value

    def tell(self, table: str, summary: Any) -> None:
        """Prints what was measured.

        Args:
          table: for people.
          summary: for programs, JSON values; it is then the last line, alone.
        """
        print(table)
        if self._json.value:
            print(json.dumps(summary))
        else:
            print("Nothing was written; --json prints the figures for programs, too")
