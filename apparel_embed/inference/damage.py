"""Messages about damaged images, wherever TensorFlow meets them."""

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
    """Returns work that names the damaged record when it fails of one.

    A record is read deep in an input pipeline, whose errors are TensorFlow's and name none. When
    there is one, the records are read once more, one by one.

    Args:
      dataset: whose images the work reads.
      work: any function of one argument.

    Returns:
      The same function; of a damaged record it raises a UserError with shard and record.
    """

    def careful_work(argument: Argument) -> Result:
        import tensorflow as tf  # A plan, which does no work, needs none.

        try:
            return work(argument)
        except tf.errors.OpError:
            logging.info("%s: looking for a damaged record", dataset.directory)
            dataset.check_records()
            raise

    return careful_work
