"""Flags of how and where trainings are computed."""

from __future__ import annotations

import re

from absl import flags

from apparel_embed.cli.define import define_number
from apparel_embed.common.cluster import read_cluster
from apparel_embed.models.precision import PRECISIONS
from apparel_embed.training.execution import ExecutionConfig
from apparel_embed.training.input import InputConfig
from apparel_embed.training.strategy import STRATEGIES, make_strategy


class ExecutionFlags:
    """How steps are computed."""

    def __init__(self) -> None:
        default = ExecutionConfig()
        self._strategy = flags.DEFINE_enum(
            "strategy",
            "auto",
            list(STRATEGIES),
            "one: the default device; mirrored: all GPUs, each with its part of the batch; "
            "multi_worker: those of all processes that TF_CONFIG names (tools/launch_local.py); "
            "tpu: the TPU that TPU_NAME names; auto: multi_worker where TF_CONFIG names more than "
            "one process, else mirrored where there is more than one GPU",
        )
        self._precision = flags.DEFINE_enum(
            "precision",
            default.precision,
            list(PRECISIONS),
            "in which the backbone computes while it is trained; weights, embeddings and losses "
            "are float32 in all",
        )
        self._jit_compile = flags.DEFINE_bool(
            "jit_compile",
            default.jit_compile,
            "compile training steps by XLA, which takes up to minutes at the start; one replica",
        )
        self._sync_batch_norm = flags.DEFINE_bool(
            "sync_batch_norm",
            default.sync_batch_norm,
            "several replicas: batch norm by the statistics of the whole batch, as on one device; "
            "without, by those of each replica's part, which is faster and gives other results",
        )
        self._deterministic = flags.DEFINE_bool(
            "deterministic",
            default.deterministic,
            "only use operations that give the same bits every time; on a GPU some are slow; by "
            "default where there are only CPUs",
        )
        self._profile_steps = flags.DEFINE_string(
            "profile_steps",
            None,
            "steps of every training to profile for TensorBoard, first:end, such as 10:20 (counted "
            "from 0, without the end)",
        )
        flags.register_validator(
            "profile_steps",
            lambda value: value is None or _is_range(value),
            "allowed are two whole numbers with a colon, the second the greater one, as in 10:20",
        )

        self._cache_gib = define_number(
            "cache_gib",
            InputConfig().cache_gib,
            "memory for training pictures in GiB: decoded ones, or where "
            "these do not fit encoded ones, which are decoded each time; "
            "what fits neither way is read each time, too",
            0.0,
        )

    def start(self) -> None:
        """Meets the other processes, if there are some: to be called before anything else.

        Raises:
          UserError: if the strategy cannot be had here.
        """
        if read_cluster() is not None or self.strategy in ("multi_worker", "tpu"):
            make_strategy(self.strategy)

    @property
    def strategy(self) -> str:
        """Name of the distribution strategy."""
        return self._strategy.value

    @property
    def cache_gib(self) -> float:
        """Memory for training pictures, in GiB."""
        return self._cache_gib.value

    def config(self) -> ExecutionConfig:
        """Returns the configuration."""
        first, _, end = (self._profile_steps.value or "").partition(":")
        return ExecutionConfig(
            precision=self._precision.value,
            jit_compile=self._jit_compile.value,
            sync_batch_norm=self._sync_batch_norm.value,
            profile_steps=(int(first), int(end)) if first else None,
            deterministic=self._deterministic.value,
        )


def _is_range(text: str) -> bool:
    found = re.fullmatch(r"(\d+):(\d+)", text)
    return found is not None and int(found[1]) < int(found[2])
