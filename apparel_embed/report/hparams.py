"""TensorBoard's HParams tab: trainings side by side with their hyperparameters."""

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
    """A row of the table.

    Attributes:
      name: name of its directory.
      hparams: the hyperparameters.
      metrics: the results.
    """

    name: str
    hparams: Mapping[str, str | int | float | bool]
    metrics: Mapping[str, float]


def write_sessions(directory: Path, sessions: Sequence[Session]) -> None:
    """Writes each session to a directory of its name.

    Args:
      directory: the directory to write to; leftovers of an interrupted call are deleted.
      sessions: sessions with unique names; TensorBoard shows all of its logdir in one table.
    """
    remove_tree(directory)
    for session in sessions:
        writer = tf.summary.create_file_writer(str(directory / session.name))
        with writer.as_default(step=0):
            api.hparams(dict(session.hparams))
            for name, value in session.metrics.items():
                tf.summary.scalar(name, value)
            # Otherwise TensorBoard shows the session as still running.
            ended = summary.session_end_pb(api_pb2.STATUS_SUCCESS)
            tf.summary.experimental.write_raw_pb(ended.SerializeToString())
        writer.close()
