"""The cost of each model: parameters, files, images per second; and the effect of compression."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from rich.filesize import decimal

from apparel_embed.common.files import read_json
from apparel_embed.common.text import counted
from apparel_embed.evaluation.compression import COMPRESSION_FILE, shares
from apparel_embed.evaluation.table import DASH, human_count
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import decoded_batches
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Section, Table
from apparel_embed.store.names import COMPRESSION

_BATCH = 64
_SECONDS = 1.0


def cost_section(inputs: ReportInputs) -> Section:
    """Returns the section on the cost of deploying each model."""
    row_of = {row["model"]: row for row in inputs.summary["rows"]}
    header = ["model", "parameters", "models to deploy", "model files", "SavedModel"]
    if inputs.measure_speed:
        header.append("images / s on this machine")
    body = []
    for model in inputs.models:
        directories = [
            training.stage.directory / "model"
            for training in inputs.trainings
            if training.model == model
        ]
        exported = inputs.saved_models.get(model)
        cells = [
            model,
            human_count(row_of[model]["parameters"]),
            str(row_of[model]["models_to_deploy"]),
            _size(directories),
            _size([exported] if exported else []),
        ]
        if inputs.measure_speed:
            cells.append(_speed(inputs, directories))
        body.append(tuple(cells))
    table = Table(_caption(inputs), tuple(header), tuple(body))
    return Section(
        "cost",
        "Cost",
        "Parameters and files are totals over all models that have to be deployed together.",
        (table,),
    )


def compression_section(inputs: ReportInputs) -> Section:
    """Returns the section on compressed models and embeddings, empty if none were measured."""
    name, title = "compression", "Smaller models and embeddings"
    stage = inputs.stages.get(COMPRESSION)
    if stage is None:
        return Section(
            name,
            title,
            "Not yet measured: run tools/measure_compression.py, then evaluate.py.",
        )
    record = read_json(stage.directory / COMPRESSION_FILE)
    body = tuple(
        (f"{row['what']} {row['kind']}", f"{row['bytes']:,}", *shares(row))
        for row in record["rows"]
    )
    queries = counted(record["rows"][0]["queries"], "query", "queries")
    caption = (
        f"Model of stage {stage.flags['model']}. R@1 within the vertical on split "
        f"{record['split']}, mean over verticals, {queries}; 95 % "
        "intervals over items in brackets, differences paired over the same queries. Bytes are the "
        "size of the model's weights or file, or of one embedding."
    )
    header = ("what", "bytes", "R@1", "against float32")
    return Section(name, title, "", (Table(caption, header, body),))


def _caption(inputs: ReportInputs) -> str:
    caption = (
        "Model files are weights and configuration as stored by training; the SavedModel, if "
        "exported, adds preprocessing."
    )
    if not inputs.measure_speed:
        return caption
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
    gpus = len(tf.config.list_physical_devices("GPU"))
    where = f"{os.cpu_count()} CPUs and {gpus} GPUs"
    return (
        f"{caption} Images per second were measured on this machine ({where}) at {now}, for "
        f"{_SECONDS:g} s with a batch of {min(_BATCH, len(inputs.images))} decoded images, and "
        "differ from report to report. An image passes through one specialist only, so the "
        "speed of specialists is that of one of them."
    )


def _size(paths: Sequence[Path]) -> str:
    """Returns the total size of all files below directories."""
    files = [file for path in paths for file in path.rglob("*") if file.is_file()]
    return decimal(sum(file.stat().st_size for file in files)) if files else DASH


def _speed(inputs: ReportInputs, directories: Sequence[Path]) -> str:
    """Measures how many decoded images per second the first model embeds."""
    if not directories:
        return DASH
    tf.keras.backend.clear_session()
    loaded, config = load_embedding_model(directories[0])
    embed = Embedder(loaded)
    records = inputs.images.records[:_BATCH]
    batch = list(decoded_batches(inputs.dataset, records, config.image_size, _BATCH))
    # The first call is a warm-up.
    images = len(embed(batch))
    rounds = 0
    start = time.perf_counter()
    while not rounds or time.perf_counter() - start < _SECONDS:
        embed(batch)
        rounds += 1
    return f"{rounds * images / (time.perf_counter() - start):,.0f}"
