"""Flags of the search for groups of verticals."""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.define import define_number
from apparel_embed.grouping.decision import Rule
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.grouping.strategies import STRATEGIES, StrategyConfig, parse_groups
from apparel_embed.grouping.trials import Budget


class GroupingFlags:
    """How verticals are grouped.

    Args:
      default: the strategy if none is named.
    """

    def __init__(self, default: str = "each") -> None:
        rule, strategy = Rule(), StrategyConfig()
        self._strategy = flags.DEFINE_enum(
            "grouping",
            default,
            list(STRATEGIES),
            "which verticals share a specialist: each its own, all one, given by --groups, or "
            "searched: greedy tries to add one vertical after the other, affinity clusters "
            "verticals by how their specialists transfer and confirms the clusters by training",
        )
        self._groups = flags.DEFINE_list(
            "groups",
            [],
            "comma-separated groups of --grouping=given, verticals joined by +, such as "
            "dress+skirt,bag; verticals left out are on their own",
        )
        self._tolerance = define_number(
            "grouping_tolerance",
            rule.tolerance,
            "by how much validation R@1 of a vertical may be expected to fall in a group, "
            "below that of its own specialist",
            0.0,
            1.0,
        )
        self._threshold = define_number(
            "affinity_threshold",
            strategy.affinity_threshold,
            "least mean affinity of verticals that --grouping=affinity "
            "tries together: 1 is a specialist as good as a vertical's own, "
            "0 one as good as an untrained network",
            -1.0,
            1.0,
        )
        self._trainings = define_number(
            "budget_trainings",
            None,
            "trainings that the search may take, finished ones included; by "
            "default as many as it wants",
            1,
        )
        self._minutes = define_number(
            "budget_minutes",
            None,
            "minutes of training that the search may take, finished ones "
            "included; by default as many as it wants",
            0.1,
        )
        flags.register_multi_flags_validator(
            ["grouping", "groups"],
            lambda values: (values["grouping"] == "given") == bool(values["groups"]),
            "--groups: needed with --grouping=given, and with no other",
        )

    def config(self) -> SearchConfig:
        """Returns the configuration of the search."""
        return SearchConfig(
            strategy=StrategyConfig(
                name=self._strategy.value,
                given=parse_groups(self._groups.value),
                affinity_threshold=self._threshold.value,
            ),
            rule=Rule(tolerance=self._tolerance.value),
            budget=Budget(trainings=self._trainings.value, minutes=self._minutes.value),
        )
