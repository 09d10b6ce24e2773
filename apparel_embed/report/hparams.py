"""TensorBoard's HParams tab: trainings side by side, by what they differ in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api, api_pb2, summary

from apparel_embed.common.files import remove_tree

R_AT_1 = "r_at_1"


@dataclasses.dataclass(frozen=True)
class Session:
    """A line of the table.

    Attributes:
      name: of its directory.
      hparams: what it was made with.
      metrics: the results.
    """

    name: str
    hparams: Mapping[str, str | int | float | bool]
    metrics: Mapping[str, float]


def write_sessions(directory: Path, sessions: Sequence[Session]) -> None:
    """Writes sessions, each into a directory of its name.

    Args:
      directory: where to; what an interrupted call has left there goes.
      sessions: with different names; TensorBoard makes a table of all below its logdir.
    """
    remove_tree(directory)
    for session in sessions:
        writer = tf.summary.create_file_writer(str(directory / session.name))
        with writer.as_default(step=0):
            api.hparams(dict(session.hparams))
            for name, value in session.metrics.items():
                tf.summary.scalar(name, value)
            # Else it would be shown as one that still runs.
            ended = summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            tf.summary.experimental.write_raw_pb(ended.SerializeToString())
        writer.close()
