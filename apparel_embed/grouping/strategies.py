"""Strategies: which groups to try, and in which order.

A strategy is a generator of partitions of the verticals, each at least as good as the previous one,
so a search may be stopped at any time. The last one is the answer. It gets trials and decisions
from a `Bench`, and stops when the bench raises `BudgetEnded`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import check_settings, setting
from apparel_embed.grouping.affinity import clusters, members, transfer_affinity
from apparel_embed.grouping.decision import Bench
from apparel_embed.grouping.trials import Group

Groups = tuple[Group, ...]


@dataclasses.dataclass(frozen=True)
class StrategyConfig:
    """A strategy and its settings.

    Attributes:
      given: the groups of strategy `given`; empty otherwise.

    Raises:
      UserError: if a value is out of range.
    """

    name: str = setting(
        "each",
        "which verticals share a specialist: each has its own, all share one, given by --groups, "
        "or a search: greedy tries to add one vertical at a time, affinity clusters verticals by "
        "how well their specialists transfer and confirms the clusters by training",
        choices=lambda: STRATEGIES,
        flag="grouping",
    )
    given: Groups = setting(
        (),
        "comma-separated groups for --grouping=given, with verticals joined by +, such as "
        "dress+skirt,bag; every vertical that is not listed gets its own specialist",
        flag="groups",
    )
    affinity_threshold: float = setting(
        0.1,
        "lowest mean affinity of verticals that --grouping=affinity tries together: 1 means that "
        "specialists are as good for each other's verticals as their own, 0 as an untrained model",
        -1.0,
        1.0,
        rare=True,
    )

    def __post_init__(self) -> None:
        if self.name not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise UserError(f"grouping is {self.name!r}; expected one of {known}")
        if (self.name == "given") != bool(self.given):
            raise UserError(
                f"grouping is {self.name}, groups are {format_groups(self.given) or 'none'}; "
                "expected groups for grouping given, and none for any other"
            )
        check_settings(self)


def parse_groups(texts: Sequence[str]) -> Groups:
    """Returns the groups in strings such as "dress+skirt"; spaces around names are ignored."""
    return tuple(tuple(sorted(name.strip() for name in text.split("+"))) for text in texts)


def format_groups(groups: Sequence[Group]) -> str:
    """Returns groups in the format of the flag, such as "dress+skirt,bag"."""
    return ",".join("+".join(group) for group in groups)


def groups_without_search(config: StrategyConfig, verticals: Sequence[str]) -> Groups | None:
    """Returns the groups of a strategy that needs no training; None for a search.

    Raises:
      UserError: if given groups do not match the verticals.
    """
    if config.name == "each":
        return _alone(verticals)
    if config.name == "all":
        return (tuple(verticals),)
    return with_all_verticals(config.given, verticals) if config.name == "given" else None


def _without_search(bench: Bench, config: StrategyConfig) -> Iterator[Groups]:
    groups = groups_without_search(config, bench.verticals)
    if groups is not None:
        yield groups


def _greedy(bench: Bench, config: StrategyConfig) -> Iterator[Groups]:
    """Starts a group with the first remaining vertical and tries to add each other one to it."""
    left = list(bench.verticals)
    groups: list[Group] = []
    yield _alone(left)
    while left:
        group: Group = (left.pop(0),)
        for vertical in tuple(left):
            larger = tuple(sorted((*group, vertical)))
            if bench.judge(larger):
                group = larger
                left.remove(vertical)
                yield (*groups, group, *_alone(left))
        groups.append(group)


def _affinity(bench: Bench, config: StrategyConfig) -> Iterator[Groups]:
    """Clusters verticals by how well their specialists transfer, then confirms them by training.

    A cluster that is not accepted is split recursively into its two halves.
    """
    verticals = bench.verticals
    yield _alone(verticals)
    own = {vertical: bench.trial((vertical,)) for vertical in verticals}
    bench.affinity = transfer_affinity(verticals, own, bench.untrained())
    for vertical, row in zip(verticals, bench.affinity):
        ordered = sorted(zip(row, verticals), reverse=True)
        others = (f"{other} {value:.2f}" for value, other in ordered if other != vertical)
        logging.info("grouping: affinity of %s: %s", vertical, ", ".join(others))
    open_nodes = clusters(verticals, bench.affinity, config.affinity_threshold)
    accepted: list[Group] = []
    while open_nodes:
        node = open_nodes.pop(0)
        group = members(node, verticals)
        if len(group) == 1 or bench.judge(group):
            accepted.append(group)
            grouped = {vertical for one in accepted for vertical in one}
            yield (*accepted, *_alone([name for name in verticals if name not in grouped]))
        else:
            open_nodes = [node.left, node.right, *open_nodes]


Strategy = Callable[[Bench, StrategyConfig], Iterator[Groups]]

STRATEGIES: Mapping[str, Strategy] = {
    "each": _without_search,
    "all": _without_search,
    "given": _without_search,
    "greedy": _greedy,
    "affinity": _affinity,
}
"""Strategies by name: one specialist each, one for all, given groups, or searched groups."""


def with_all_verticals(groups: Groups, verticals: Sequence[str]) -> Groups:
    """Returns groups, with a group of its own for every vertical that they leave out.

    Raises:
      UserError: if a vertical is unknown or in two groups.
    """
    named = [vertical for group in groups for vertical in group]
    for vertical in named:
        if vertical not in verticals:
            raise UserError(
                f"groups {format_groups(groups)}: vertical {vertical!r} is unknown; "
                f"expected verticals of the dataset: {', '.join(verticals)}"
            )
        if named.count(vertical) > 1:
            raise UserError(f"groups {format_groups(groups)}: {vertical} occurs more than once")
    return (*groups, *_alone([vertical for vertical in verticals if vertical not in named]))


def _alone(verticals: Sequence[str]) -> Groups:
    return tuple((vertical,) for vertical in verticals)
