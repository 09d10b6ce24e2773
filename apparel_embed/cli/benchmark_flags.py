"""Flags and output of benchmarks."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from apparel_embed.cli.define import ConfigFlags, define

_Config = TypeVar("_Config")


class BenchmarkFlags(ConfigFlags[_Config]):
    """The benchmark's settings, and whether to print the results as JSON too.

    Args:
      benchmark: the dataclass of the benchmark's settings.
    """

    def __init__(self, benchmark: type[_Config]) -> None:
        super().__init__(benchmark)
        self._json = define("json", False, "print one JSON object on the last line")

    def print_results(self, table: str, summary: Any) -> None:
        """Prints the results.

        Args:
          table: text for people.
          summary: JSON values for programs, printed on the last line if --json is given.
        """
        print(table)
        if self._json.value:
            print(json.dumps(summary))
        else:
            print("Nothing was written; --json also prints the results as JSON")
