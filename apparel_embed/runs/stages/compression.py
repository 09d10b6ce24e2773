"""What smaller models and smaller embeddings cost in R@1: a stage of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
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
from apparel_embed.runs.stages.training import COMPRESSION
from apparel_embed.serving.tflite import TFLiteModel, to_tflite
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import run_stage

TABLE_FILE = "compression.md"
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class CompressionConfig:
    """What to make smaller.

    Attributes:
      tflite: kinds of TensorFlow Lite models, some of `TFLITE_KINDS`.
      embeddings: kinds of embeddings, some of `COMPRESSORS`.
      pq_bytes: bytes of a product-quantised embedding; must divide the dimensions.
      representative_pictures: of the training pictures, by which int8 models find the ranges of
        values, 1 or more.
      split: to evaluate on.
      seed: of the bootstrap, and of codewords.
    """

    tflite: tuple[str, ...] = ("float16", "int8")
    embeddings: tuple[str, ...] = ("float16", "int8", "pq", "binary")
    pq_bytes: int = 8
    representative_pictures: int = 200
    split: str = "test"
    seed: int = 0


def compression_stage(
    run_dir: Path, dataset: PreparedDataset, model: Stage, config: CompressionConfig
) -> Stage:
    """Makes a model and its embeddings smaller, and measures what that costs.

    Writes `model_<kind>.tflite`, and `compression.json` and the same as a table, `compression.md`.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      model: the stage of the model.
      config: what to do.
    """

    def work(directory: Path) -> dict[str, Any]:
        tf.keras.backend.clear_session()
        loaded, _ = load_embedding_model(model.directory / "model")
        pictures = evaluation_set(dataset, config.split)
        embeddings = Embedder(loaded).records(dataset, pictures.records)
        whole = query_outcomes(embeddings, pictures)
        weights = sum(weight.nbytes for weight in loaded.get_weights())
        rows = [_row("model", "float32", weights, whole, whole, config.seed)]
        for kind, size, outcomes in _smaller_models(directory, dataset, loaded, pictures, config):
            rows.append(_row("model", kind, size, outcomes, whole, config.seed))
        rows.append(_row("embedding", "float32", embeddings[0].nbytes, whole, whole, config.seed))
        train = Embedder(loaded).records(dataset, dataset.select(split="train"))
        for kind in config.embeddings:
            compressor = make_compressor(kind, train, pq_bytes=config.pq_bytes, seed=config.seed)
            seen = compressor.decode(compressor.encode(embeddings))
            asked = None if compressor.queries_too else embeddings
            outcomes = query_outcomes(seen, pictures, query_embeddings=asked)
            size = compressor.bytes_per_picture
            rows.append(_row("embedding", kind, size, outcomes, whole, config.seed))
        record = {"split": config.split, "rows": rows}
        write_json(directory / COMPRESSION_FILE, record)
        with atomic_path(directory / TABLE_FILE) as temporary:
            temporary.write_text(render_compression(record), "utf-8")
        return {"rows": len(rows)}

    return run_stage(
        run_dir / COMPRESSION,
        flags={"model": model.name, **_json(dataclasses.asdict(config))},
        inputs={"prepared": dataset.fingerprint, model.name: model.fingerprint},
        work=work,
        renewed=True,
    )


def _smaller_models(
    directory: Path,
    dataset: PreparedDataset,
    model: tf.keras.Model,
    pictures: EvaluationSet,
    config: CompressionConfig,
) -> Iterator[tuple[str, int, Outcomes]]:
    """Yields kind, bytes and outcomes of each TensorFlow Lite model, which it writes."""
    if not config.tflite:
        return
    size = model.input_shape[1]
    train = dataset.select(split="train")
    count = min(config.representative_pictures, len(train))
    chosen = train[np.linspace(0, len(train) - 1, count).astype(int)]
    shown = np.concatenate(list(decoded_batches(dataset, chosen, size, _BATCH).as_numpy_iterator()))
    batches = list(decoded_batches(dataset, pictures.records, size, _BATCH).as_numpy_iterator())
    for kind in config.tflite:
        content = to_tflite(model, kind, shown)
        with atomic_path(directory / f"model_{kind}.tflite") as temporary:
            temporary.write_bytes(content)
        bar = progress_bar(batches, what=kind, unit="batches", delay=SECONDS_UNSEEN)
        yield kind, len(content), query_outcomes(TFLiteModel(content)(bar), pictures)


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


def _json(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values as they come back from JSON: tuples as lists."""
    return {
        k: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v
        for k, v in values.items()
    }
