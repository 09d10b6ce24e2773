"""Imports and prepares a dataset in each layout and trains a model on it for one step."""

import dataclasses

import pytest
import tensorflow as tf
from data.importers import published_trees
from data.importers.shop_trees import draw
from tiny_teachers import MODEL

from apparel_embed.data.importers.derive import DeriveOptions
from apparel_embed.data.importers.importing import ImportConfig, import_dataset
from apparel_embed.data.importers.registry import FORMATS
from apparel_embed.data.importers.splitting import SplitOptions
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.training.loop import LoopConfig
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig, train_specialist

pytestmark = pytest.mark.slow

ONE_STEP = SpecialistConfig(
    MODEL,
    OptimizationConfig(steps=1),
    items_per_batch=3,
    images_per_item=2,
    loop=LoopConfig(validate_every=1),
)


def make_shop(root):
    draw(
        root,
        (
            f"{vertical}/{item}/{view}.png"
            for vertical in ("tops", "bags")
            for item in range(6)
            for view in ("front", "back")
        ),
        size=(32, 32),
    )


TREES = {**published_trees.TREES, "folders": make_shop, "table": make_shop}
CHANGES = {
    # It has its own validation split.
    "deepfashion_consumer_to_shop": {"split": SplitOptions()},
    "folders": {"split": SplitOptions(val_fraction=0.2, test_fraction=0.3)},
    "table": {
        "split": SplitOptions(val_fraction=0.2, test_fraction=0.3),
        "derive": DeriveOptions(
            pattern="^(?P<vertical>[^/]+)/(?P<n>[^/]+)/",
            columns={"item_id": "{vertical}-{n}"},
        ),
    },
}


@pytest.fixture
def eager():
    """Runs eagerly, which avoids compiling a graph for a single step."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.*:UserWarning")
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_imported_prepared_and_trained_on(name, tmp_path):
    TREES[name](tmp_path / "data")
    manifest = tmp_path / "data" / "manifest.csv"
    config = ImportConfig(name, tmp_path / "data", manifest, split=SplitOptions(val_fraction=0.2))
    import_dataset(dataclasses.replace(config, **CHANGES.get(name, {})))

    dataset = prepare(PrepareConfig(manifest, tmp_path / "prepared"), processes=1)

    assert dataset.reject_count == 0
    assert {"train", "val", "test"} <= set(dataset.column("split").tolist())
    result = train_specialist(
        dataset, dataset.verticals, ONE_STEP, tmp_path / "specialist", "specialist"
    )
    assert result["train_items"] >= 6
    assert 0 <= result["validation_r_at_1"] <= 1
