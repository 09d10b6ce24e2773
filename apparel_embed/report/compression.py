"""What smaller models and smaller embeddings cost, as a section of the report."""

from __future__ import annotations

from apparel_embed.common.files import read_json
from apparel_embed.common.text import counted
from apparel_embed.evaluation.compression import COMPRESSION_FILE, shares
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.parts import Section, Table
from apparel_embed.store.names import COMPRESSION


def compression_section(inputs: ReportInputs) -> Section:
    """Returns the table of costs, if the run has one."""
    name, title = "compression", "Smaller models and embeddings"
    stage = inputs.stages.get(COMPRESSION)
    if stage is None:
        return Section(
            name, title, "Not measured yet: run tools/measure_compression.py, then this again."
        )
    record = read_json(stage.directory / COMPRESSION_FILE)
    body = tuple(
        (f"{row['what']} {row['kind']}", f"{row['bytes']:,}", *shares(row))
        for row in record["rows"]
    )
    queries = counted(record["rows"][0]["queries"], "query", "queries")
    caption = (
        f"R@1 within the vertical on split {record['split']}, mean over verticals, {queries}; 95 % "
        "intervals over items in brackets, differences paired over the same queries. Bytes are of "
        "the model's weights or file, or of one embedding."
    )
    header = ("what", "bytes", "R@1", "against float32")
    return Section(name, title, "", (Table(caption, header, body),))
