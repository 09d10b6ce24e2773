"""How the steps of a training are computed, which is no part of what is trained."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.models.computing import PRECISIONS


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """How steps are computed.

    Attributes:
      precision: in which the backbone computes, one of `PRECISIONS`; weights, embeddings and losses
        are float32 in all. With float16 the loss is scaled up before gradients are taken, so that
        small ones do not vanish; a step whose gradients overflow is left out, and the scale halved.
      profile_steps: the first step to profile, counted from 0, and the one to end before; None for
        no profile.
    """

    precision: str = setting(
        "float32",
        "in which the backbone computes while it is trained; weights, embeddings and losses are "
        "float32 in all",
        choices=PRECISIONS,
    )
    jit_compile: bool = setting(
        False,
        "compile training steps by XLA, which takes up to minutes at the start; one replica",
        seldom=True,
    )
    sync_batch_norm: bool = setting(
        True,
        "several replicas: batch norm by the statistics of the whole batch, as on one device; "
        "without, by those of each replica's part, which is faster and gives other results",
        seldom=True,
    )
    profile_steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"--precision={self.precision}: allowed are {', '.join(PRECISIONS)}")
        if self.profile_steps is not None:
            first, end = self.profile_steps
            if not 0 <= first < end:
                raise UserError(
                    f"--profile_steps={first}:{end}: allowed are two numbers of 0 and above, the "
                    "second greater than the first"
                )

    def check(self, replicas: int) -> None:
        """Raises a UserError if steps cannot be computed so on a number of replicas."""
        if self.jit_compile and replicas > 1:
            raise UserError(
                f"--jit_compile with {replicas} replicas: allowed with 1, as losses and batch norm "
                "ask the other replicas for their part of the batch, which XLA does not compile"
            )
