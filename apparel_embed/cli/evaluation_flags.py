"""Flags of evaluations and reports."""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.define import define_seed


def split_flag(default: str = "test") -> flags.FlagHolder[str]:
    """Returns the flag that names the split to evaluate on."""
    return flags.DEFINE_enum("split", default, ["val", "test"], "split to evaluate on")


def bootstrap_seed_flag(also: str = "") -> flags.FlagHolder[int]:
    """Returns the flag of the bootstrap's seed.

    Args:
      also: what else it is the seed of.
    """
    return define_seed(f"the bootstrap{also}")


def measure_speed_flag() -> flags.FlagHolder[bool]:
    """Returns the flag that says whether the report measures how fast models are."""
    return flags.DEFINE_bool(
        "measure_speed",
        True,
        "measure images per second for the report, and steps for --dry_run; without, a report is "
        "the same for the same inputs",
    )
