r"""Makes the student and its embeddings smaller, and says what that costs in R@1.

    python tools/measure_compression.py --run_dir=runs/mine --tflite=int8 --embedding_kinds=int8,pq

Writes <run_dir>/compression/model_<kind>.tflite, and the costs as compression.json and
compression.md; the report shows them when it is made anew. Made anew with other flags.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.define import define_number
from apparel_embed.cli.ending import command, tell_end
from apparel_embed.cli.evaluation_flags import bootstrap_seed_flag, split_flag
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.evaluation.compression import COMPRESSION_FILE, COMPRESSORS
from apparel_embed.runs.stages.compression import (
    TABLE_FILE,
    CompressionConfig,
    compression_stage,
)
from apparel_embed.runs.stages.training import STUDENT
from apparel_embed.serving.tflite import TFLITE_KINDS
from apparel_embed.store.record import open_stage

_DEFAULT = CompressionConfig()
_RUN = RunFlags()
_STAGE = flags.DEFINE_string("stage", STUDENT, "stage whose model to make smaller")
_TFLITE = flags.DEFINE_list(
    "tflite",
    list(_DEFAULT.tflite),
    f"comma-separated kinds of TFLite models, out of {', '.join(TFLITE_KINDS)}; or nothing",
)
_EMBEDDINGS = flags.DEFINE_list(
    "embedding_kinds",
    list(_DEFAULT.embeddings),
    f"comma-separated kinds of embeddings, out of {', '.join(COMPRESSORS)}; or nothing",
)
_PQ_BYTES = define_number(
    "pq_bytes",
    _DEFAULT.pq_bytes,
    "bytes of a product-quantised embedding; must divide its dimensions",
    1,
    4096,
)
_REPRESENTATIVE = define_number(
    "representative_pictures",
    _DEFAULT.representative_pictures,
    "training pictures by which int8 models find the ranges of values",
    1,
)
_SPLIT = split_flag(_DEFAULT.split)
_SEED = bootstrap_seed_flag(" and of codewords")


def main() -> None:
    """Measures, and prints the table."""
    config = CompressionConfig(
        tflite=tuple(_TFLITE.value),
        embeddings=tuple(_EMBEDDINGS.value),
        pq_bytes=_PQ_BYTES.value,
        representative_pictures=_REPRESENTATIVE.value,
        split=_SPLIT.value,
        seed=_SEED.value,
    )
    model = open_stage(_RUN.run_dir / _STAGE.value)
    stage = compression_stage(_RUN.run_dir, _RUN.dataset(), model, config)
    print((stage.directory / TABLE_FILE).read_text("utf-8"))
    tell_end(
        [
            ("Models", stage.directory),
            ("Costs", stage.directory / COMPRESSION_FILE),
            ("Report", "made anew by the next command"),
            ("Next", command("tools/evaluate.py", **_RUN.again)),
        ]
    )


if __name__ == "__main__":
    app.run(main)
