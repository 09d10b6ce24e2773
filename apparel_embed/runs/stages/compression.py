"""The stage that measures the loss in R@1 of compressed models and embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from apparel_embed.common.files import atomic_path, write_json
from apparel_embed.common.progress import SECONDS_UNSEEN, progress_bar
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.compression import (
    COMPRESSION_FILE,
    make_compressor,
    render_compression,
)
from apparel_embed.evaluation.protocol import (
    ALL,
    EvaluationSet,
    Outcomes,
    compare_models,
    query_outcomes,
    summary_rows,
)
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import decoded_batches
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.runs.config import CompressionConfig
from apparel_embed.runs.run import Run
from apparel_embed.serving.tflite import TFLiteModel, to_tflite
from apparel_embed.store.names import COMPRESSION
from apparel_embed.store.record import Stage, fingerprints

TABLE_FILE = "compression.md"


def compression_stage(run: Run, model: Stage, config: CompressionConfig) -> Stage:
    """Compresses a model and its embeddings, and measures the loss in R@1.

    Writes `model_<kind>.tflite`, `compression.json`, and the same as a table, `compression.md`.

    Args:
      run: the run.
      model: the model's stage.
      config: the kinds of compression to measure.
    """
    dataset = run.dataset

    def work(directory: Path) -> dict[str, Any]:
        tf.keras.backend.clear_session()
        loaded, _ = load_embedding_model(model.directory / "model")
        images = evaluation_set(dataset, config.split)
        embeddings = Embedder(loaded).records(dataset, images.records)
        whole = query_outcomes(embeddings, images)
        weights = sum(weight.nbytes for weight in loaded.get_weights())
        rows = [_row("model", "float32", weights, whole, whole, config.seed)]
        for kind, size, outcomes in _smaller_models(directory, dataset, loaded, images, config):
            rows.append(_row("model", kind, size, outcomes, whole, config.seed))
        rows.append(_row("embedding", "float32", embeddings[0].nbytes, whole, whole, config.seed))
        train = Embedder(loaded).records(dataset, dataset.select(split="train"))
        for kind in config.embeddings:
            compressor = make_compressor(kind, train, pq_bytes=config.pq_bytes, seed=config.seed)
            seen = compressor.decode(compressor.encode(embeddings))
            queries = None if compressor.queries_too else embeddings
            outcomes = query_outcomes(seen, images, query_embeddings=queries)
            size = compressor.bytes_per_image
            rows.append(_row("embedding", kind, size, outcomes, whole, config.seed))
        record = {"split": config.split, "rows": rows}
        write_json(directory / COMPRESSION_FILE, record)
        with atomic_path(directory / TABLE_FILE) as temporary:
            temporary.write_text(render_compression(record), "utf-8")
        return {"rows": len(rows)}

    # Lists instead of tuples, as read back from JSON.
    flags = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(config).items()}
    return run.make(
        COMPRESSION,
        work,
        flags={"model": model.name, **flags},
        inputs=fingerprints(model),
        overwrite=True,
    )


def _smaller_models(
    directory: Path,
    dataset: PreparedDataset,
    model: tf.keras.Model,
    images: EvaluationSet,
    config: CompressionConfig,
) -> Iterator[tuple[str, int, Outcomes]]:
    """Writes the TensorFlow Lite models; yields the kind, size in bytes and outcomes of each."""
    if not config.tflite:
        return
    size = model.input_shape[1]
    train = dataset.select(split="train")
    count = min(config.representative_images, len(train))
    chosen = train[np.linspace(0, len(train) - 1, count).astype(int)]
    shown = np.concatenate(list(decoded_batches(dataset, chosen, size).as_numpy_iterator()))
    batches = list(decoded_batches(dataset, images.records, size).as_numpy_iterator())
    for kind in config.tflite:
        content = to_tflite(model, kind, shown)
        with atomic_path(directory / f"model_{kind}.tflite") as temporary:
            temporary.write_bytes(content)
        bar = progress_bar(batches, what=kind, unit="batches", delay=SECONDS_UNSEEN)
        yield kind, len(content), query_outcomes(TFLiteModel(content)(bar), images)


def _row(
    what: str, kind: str, size: int, outcomes: Outcomes, whole: Outcomes, seed: int
) -> dict[str, Any]:
    row = summary_rows(outcomes, seed)[-1]
    names = ("queries", "r_at_1", "r_at_1_low", "r_at_1_high")
    return {
        "what": what,
        "kind": kind,
        "bytes": int(size),
        **{name: row[name] for name in names},
        "difference": dataclasses.asdict(compare_models(outcomes, whole, seed=seed)[ALL]),
    }
