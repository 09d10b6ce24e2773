r"""Compresses the student and its embeddings, and measures the loss in R@1.

    python tools/measure_compression.py --run_dir=runs/mine --tflite=int8 --embedding_kinds=int8,pq

Writes <run_dir>/compression/model_<kind>.tflite, and the costs to compression.json and
compression.md; the next report shows them. Different flags measure again.
"""

from apparel_embed.cli import app
from apparel_embed.cli.define import ConfigFlags, define
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.cli.training_flags import EmbeddingFlags
from apparel_embed.evaluation.compression import COMPRESSION_FILE
from apparel_embed.runs.config import CompressionConfig
from apparel_embed.store.names import STUDENT
from apparel_embed.store.record import open_stage

_RUN = RunFlags()
_STAGE = define("stage", STUDENT, "stage whose model to compress")
_COMPRESSION = ConfigFlags(CompressionConfig)
_EMBEDDING = EmbeddingFlags()


def main() -> None:
    """Measures the costs and prints the table."""
    from apparel_embed.runs.stages.compression import TABLE_FILE, compression_stage

    _EMBEDDING.start()
    model = open_stage(_RUN.run_dir / _STAGE.value)
    stage = compression_stage(_RUN.run(), model, _COMPRESSION.config())
    print((stage.directory / TABLE_FILE).read_text("utf-8"))
    print_summary(
        [
            ("Models", stage.directory),
            ("Costs", stage.directory / COMPRESSION_FILE),
            ("Report", "updated by the next command"),
            ("Next", command("tools/evaluate.py", **_RUN.again)),
        ]
    )


if __name__ == "__main__":
    app.run(main)
