"""Flags of the search for groups of verticals."""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.define import ConfigFlags
from apparel_embed.grouping.decision import Rule
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.grouping.strategies import StrategyConfig, parse_groups
from apparel_embed.grouping.trials import Budget

_GROUP = "Groups of verticals"


class GroupingFlags:
    """Flags for grouping verticals.

    Args:
      default: the default strategy.
    """

    def __init__(self, default: str = StrategyConfig.name) -> None:
        self._strategy = ConfigFlags(StrategyConfig, _GROUP, defaults={"name": default})
        self._rule = ConfigFlags(Rule, _GROUP)
        self._budget = ConfigFlags(Budget, _GROUP)
        flags.register_multi_flags_validator(
            ["grouping", "groups"],
            lambda values: (values["grouping"] == "given") == bool(values["groups"]),
            "--groups: required with --grouping=given, and only valid with it",
        )

    def config(self) -> SearchConfig:
        """Returns the configuration of the search."""
        given = parse_groups(self._strategy.values()["given"])
        return SearchConfig(
            strategy=self._strategy.config(given=given),
            rule=self._rule.config(),
            budget=self._budget.config(),
        )
