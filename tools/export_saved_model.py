r"""Exports a model as a SavedModel: encoded pictures in, embeddings out.

    python tools/export_saved_model.py --run_dir=runs/mine

Signatures: `serving_default` takes `image_bytes` (JPEG, PNG, GIF or BMP of any size) and gives
`embedding` and `valid`; `embed_images` takes decoded `images`.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli import app
from apparel_embed.runs import open_stage
from apparel_embed.stages import MODEL_VERSION, STUDENT, export_stage

_RUN_DIR = flags.DEFINE_string("run_dir", None, "directory of the run", required=True)
_STAGE = flags.DEFINE_string("stage", STUDENT, "stage whose model to export")


def main() -> None:
    """Exports the model and says where it is."""
    run_dir = Path(_RUN_DIR.value)
    stage = export_stage(run_dir, open_stage(run_dir / _STAGE.value))
    saved_model = stage.directory / MODEL_VERSION
    print(f"SavedModel:  {saved_model}")
    print(f"Next:        saved_model_cli show --dir {saved_model} --all")


if __name__ == "__main__":
    app.run(main)
