"""Flags of the search for groups of verticals."""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.define import ConfigFlags, define
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.grouping.strategies import STRATEGIES, parse_groups

_GROUP = "Groups of verticals"


class GroupingFlags:
    """How verticals are grouped.

    Args:
      default: the strategy if none is named.
    """

    def __init__(self, default: str = SearchConfig().strategy.name) -> None:
        search = SearchConfig()
        self._name = define(
            "grouping",
            default,
            "which verticals share a specialist: each its own, all one, given by --groups, or "
            "searched: greedy tries to add one vertical after the other, affinity clusters "
            "verticals by how their specialists transfer and confirms the clusters by training",
            choices=STRATEGIES,
            group=_GROUP,
        )
        self._given = define(
            "groups",
            (),
            "comma-separated groups of --grouping=given, verticals joined by +, such as "
            "dress+skirt,bag; verticals left out are on their own",
            group=_GROUP,
        )
        self._rule = ConfigFlags(search.rule, _GROUP)
        self._strategy = ConfigFlags(search.strategy, _GROUP)
        self._budget = ConfigFlags(search.budget, _GROUP)
        flags.register_multi_flags_validator(
            ["grouping", "groups"],
            lambda values: (values["grouping"] == "given") == bool(values["groups"]),
            "--groups: needed with --grouping=given, and with no other",
        )

    def config(self) -> SearchConfig:
        """Returns the configuration of the search."""
        return SearchConfig(
            strategy=self._strategy.config(
                name=self._name.value, given=parse_groups(self._given.value)
            ),
            rule=self._rule.config(),
            budget=self._budget.config(),
        )
