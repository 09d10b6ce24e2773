"""Flags of benchmarks, and how they end."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from apparel_embed.cli.define import ConfigFlags, define

_Config = TypeVar("_Config")


class BenchmarkFlags(ConfigFlags[_Config]):
    """What to measure, and whether figures are printed for programs too.

    Args:
      benchmark: the dataclass of what to measure.
    """

    def __init__(self, benchmark: type[_Config]) -> None:
        super().__init__(benchmark)
        self._json = define("json", False, "print one JSON object on the last line")

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
