import shutil

import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.damage import report_corrupt_records
from apparel_embed.inference.image_store import decoded_batches
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.specialist import specialist_stage
from apparel_embed.training.input import InputConfig
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig


@pytest.fixture
def damaged(tiny_prepared, tmp_path):
    """A copy of the dataset with a flipped bit in record 5, a training image."""
    directory = tmp_path / "prepared"
    shutil.copytree(tiny_prepared.directory, directory)
    (jpeg,) = tiny_prepared.read_images([5])
    (shard,) = directory.glob("*.array_record")
    data = bytearray(shard.read_bytes())
    data[data.index(jpeg) + 30] ^= 1
    shard.write_bytes(data)
    return PreparedDataset.open(directory)


def train(dataset, run_dir, cache_gib):
    config = SpecialistConfig(
        model=ModelConfig(image_size=32, embedding_dim=8),
        optimization=OptimizationConfig(steps=2),
        items_per_batch=4,
        images_per_item=4,
        input=InputConfig(cache_gib=cache_gib),
    )
    return specialist_stage(Run(run_dir, dataset), dataset.verticals, config, "combined")


@pytest.mark.parametrize("cache_gib", [1.0, 0.0])
def test_the_training_error_names_shard_and_record_in_one_line(damaged, tmp_path, cache_gib):
    """Whether the record is read to fill the cache or, deep in the pipeline, for a batch."""
    with pytest.raises(UserError, match=r"\.array_record: record 5 is damaged \(") as caught:
        train(damaged, tmp_path, cache_gib)

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "combined").exists()


def test_a_shard_truncated_after_opening_is_named(tiny_prepared, tmp_path):
    directory = tmp_path / "prepared"
    shutil.copytree(tiny_prepared.directory, directory)
    dataset = PreparedDataset.open(directory)
    (shard,) = directory.glob("*.array_record")
    shard.write_bytes(shard.read_bytes()[:5000])
    read = report_corrupt_records(
        dataset, lambda ds: list(decoded_batches(ds, np.arange(64), 32, 16))
    )

    with pytest.raises(UserError, match=rf"{shard}: record \d+ is damaged \("):
        read(dataset)
    with pytest.raises(UserError, match="truncated or changed"):
        PreparedDataset.open(directory)


def test_an_error_without_a_damaged_record_is_unchanged(tiny_prepared):
    def fail(argument):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        report_corrupt_records(tiny_prepared, fail)(None)
