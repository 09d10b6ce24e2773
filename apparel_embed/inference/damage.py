"""Names damaged records if TensorFlow fails to read or decode an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from absl import logging

from apparel_embed.data.prepared import PreparedDataset

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def report_corrupt_records(
    dataset: PreparedDataset, work: Callable[[Argument], Result]
) -> Callable[[Argument], Result]:
    """Wraps a function so that it names the damaged record if it fails because of one.

    Records are read deep in an input pipeline, and TensorFlow's errors do not name them. After such
    an error, the records are read again one by one.

    Args:
      dataset: the dataset that the function reads.
      work: any function of one argument.

    Returns:
      The wrapped function; for a damaged record it raises a UserError with shard and record.
    """

    def careful_work(argument: Argument) -> Result:
        import tensorflow as tf  # Not at the top: planning a run does not need TensorFlow.

        try:
            return work(argument)
        except tf.errors.OpError:
            logging.info("%s: looking for a damaged record", dataset.directory)
            dataset.check_records()
            raise

    return careful_work
