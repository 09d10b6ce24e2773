"""A thousand verticals and a million rows: columns only, without images."""

import dataclasses
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from report_runs import is_drawn
from tiny_run import config_of

from apparel_embed.data.prepare import plan_prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.data.sampler import PKSampler, WeightedSampler
from apparel_embed.evaluation.models import Embedded, summarise
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.table import render_tables
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.grouping.strategies import StrategyConfig
from apparel_embed.report.gap import gap_section
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import render
from apparel_embed.runs.pipeline import plan_pipeline
from apparel_embed.training.readiness import check_readiness
from apparel_embed.training.validation import standard_error

pytestmark = pytest.mark.slow

IMAGES_PER_ITEM = 2
# Kilobytes on Linux.
GIB = 2**20


def write_manifest(path, *, verticals, train_items, held_out_items=2):
    """Writes a manifest and returns its number of rows."""
    splits = ["train"] * train_items + held_out_items * ["val", "test"]
    items = len(splits) * verticals
    item = np.repeat(np.arange(items), IMAGES_PER_ITEM)
    texts = pa.array(np.arange(items)).cast(pa.string()).take(pa.array(item))
    names = pa.array([f"vertical-{number:04d}" for number in range(verticals)])
    table = {
        "image": pa.array(np.arange(len(item))).cast(pa.string()),
        "item_id": texts,
        "vertical": names.take(pa.array(item % verticals)),
        "split": pa.array(splits).take(pa.array(item // verticals)),
    }
    pq.write_table(pa.table(table), path)
    return len(item)


@pytest.fixture
def grown():
    """Returns a function that returns the growth of the process's peak memory, in GiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return lambda: (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / GIB


def sample(dataset):
    """Returns the records of a specialist's batch and of a student's batch."""
    records, step = dataset.select(split="train"), tf.constant(7, tf.int64)
    items, verticals = (dataset.codes(name)[0][records] for name in ("item_id", "vertical"))
    of_items = PKSampler.from_items(items, items_per_batch=16, images_per_item=2, seed=0)
    weighted = WeightedSampler.of_verticals(verticals, weights="sqrt", batch_size=64, seed=0)
    positions, labels = of_items.batch(step)
    assert len(np.unique(items[positions.numpy()])) == len(np.unique(labels)) == 16
    return records[positions.numpy()], records[weighted.batch(step).numpy()]


def report(dataset, verticals):
    """Evaluates made-up embeddings on split test; returns the summary and the gap section."""
    images = evaluation_set(dataset, "test")
    random = np.random.default_rng(0)
    _, item = np.unique(images.items.astype(np.int64), return_inverse=True)
    centres = random.normal(size=(item.max() + 1, 8))
    embeddings = (centres[item] + 0.1 * random.normal(size=(len(item), 8))).astype(np.float32)
    models = {
        "specialists": Embedded(embeddings, 1000 * verticals, verticals, False),
        "unified": Embedded(embeddings, 1000, 1, True),
    }
    summary = summarise(models, images, [("unified", "specialists")], seed=0)
    assert 0 < standard_error(images, dataset.verticals)(0.9) < 0.1
    of_models = {name: model.embeddings for name, model in models.items()}
    inputs = ReportInputs("run", "test", dataset, images, summary, of_models, (), {}, False)
    return summary, gap_section(inputs)


def test_a_thousand_verticals_are_planned_sampled_evaluated_and_reported(tmp_path, grown):
    rows = write_manifest(tmp_path / "manifest.parquet", verticals=1000, train_items=2)
    tiny = config_of(tmp_path / "run")
    config = dataclasses.replace(
        tiny,
        synthetic=None,
        prepare=PrepareConfig(tmp_path / "manifest.parquet", tmp_path / "run/prepared"),
        grouping=SearchConfig(strategy=StrategyConfig(name="each")),
    )
    plan = plan_pipeline(config)
    names = [stage.name for stage in plan.stages.values()]
    assert sum(name.startswith("specialist-") for name in names) == 1000
    assert {"combined-start", "targets", "student", "evaluation", "report"} <= set(names)
    # The combined model to start from, all specialists, and the combined model to compare with.
    assert plan.work.triplet_steps > 1000 * 12
    assert not (tmp_path / "run").exists()

    dataset = plan_prepare(config.prepare).dataset
    assert (len(dataset), len(dataset.verticals)) == (rows, 1000)
    of_items, weighted = sample(dataset)
    assert len(of_items) == 32 and len(weighted) == 64

    summary, gap = report(dataset, 1000)
    # Within: each vertical and ALL for two models; merged: for one.
    assert len(summary["rows"]) == 3 * 1001
    assert len(summary["comparisons"]) == 1001
    everywhere = next(row for row in summary["rows"] if row["vertical"] == "ALL")
    assert everywhere["queries"] == 1000 * 2 * IMAGES_PER_ITEM
    assert everywhere["r_at_1"] > 0.9
    assert "vertical-0999" in render_tables(summary["rows"])
    figure = next(part for part in gap.parts if part.kind != "table")
    assert "the 100 verticals with the most queries are drawn; the other 900" in figure.caption
    assert is_drawn(figure.png)
    page = render("report.html", title="t", facts=[], sections=[gap], right="r", wrong="w")
    assert page.count("vertical-0999") >= 3
    assert grown() < 2


def test_a_million_rows_are_planned_sampled_evaluated_and_reported(tmp_path, grown):
    verticals, train_items = 50, 9_960
    rows = write_manifest(
        tmp_path / "manifest.parquet",
        verticals=verticals,
        train_items=train_items,
        held_out_items=20,
    )
    assert rows == 1_000_000
    config = PrepareConfig(tmp_path / "manifest.parquet", tmp_path / "prepared")
    plan = plan_prepare(config)
    assert (plan.state, plan.todo, len(plan.dataset)) == ("to do", rows, rows)
    ready = check_readiness(plan.dataset, min_images=2, split="test")
    assert ready.is_measured and not ready.problems
    of_items, weighted = sample(plan.dataset)
    assert max(of_items.max(), weighted.max()) > rows / 2

    summary, gap = report(plan.dataset, verticals)
    assert len(summary["rows"]) == 3 * (verticals + 1)
    queries = {row["vertical"]: row["queries"] for row in summary["rows"]}
    assert queries["ALL"] == verticals * 20 * IMAGES_PER_ITEM
    assert gap.parts
    assert grown() < 3
