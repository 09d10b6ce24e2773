r"""Exports a model as a SavedModel: encoded images in, embeddings out.

    python tools/export_saved_model.py --run_dir=runs/mine --vertical_head --serving_kit=serving

Signatures: `serving_default` takes `image_bytes` (JPEG, PNG, GIF or BMP) and returns `embedding`
and `valid`, with --vertical_head also `vertical` and `vertical_name`; `embed_images` takes decoded
`images`; with a detector, `detect_and_embed` takes `image_bytes` of photographs and returns boxes,
verticals and embeddings of the garments in them. The student becomes the next version in
<run_dir>/saved_model, where servers look for it; the model of another --stage is written to
<run_dir>/saved_model-<stage>. --output names another directory. Earlier versions are kept.
--serving_kit writes a directory to deploy the model with TensorFlow Serving and the search service:
container file, Docker Compose, Kubernetes, systemd.
"""

from pathlib import Path

from apparel_embed.cli import app
from apparel_embed.cli.define import SERVED, ConfigFlags, define
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.runs.config import VerticalHeadConfig
from apparel_embed.runs.run import Run
from apparel_embed.serving.exported import ExportConfig
from apparel_embed.store.names import DETECTOR, STUDENT
from apparel_embed.store.record import Stage, open_stage

_RUN = RunFlags()
_STAGE = define("stage", STUDENT, "stage whose model to export")
_OUTPUT = define(
    "output",
    None,
    "directory of the versions; by default <run_dir>/saved_model for the student, and "
    "<run_dir>/saved_model-<stage>, which no server polls, for other stages",
)
_SERVING_KIT = define(
    "serving_kit",
    None,
    "directory to write the serving kit to (TensorFlow Serving and the search service); by default "
    "not written",
)
_DETECTOR = define(
    "detector",
    None,
    "export a detector, which finds the garments in photographs, with the model; by default if "
    "--run_dir has one",
    kind=bool,
    group=SERVED,
)
_DETECTOR_FROM = define(
    "detector_from",
    None,
    "directory of the run whose detector to export; by default --run_dir",
    group=SERVED,
)
_HEAD = ConfigFlags(VerticalHeadConfig)
_EXPORT = ConfigFlags(ExportConfig, SERVED)


def main() -> None:
    """Exports the model and prints a summary."""
    from apparel_embed.runs.stages.saved_model import export_stage, serving_kit
    from apparel_embed.runs.stages.vertical_head import vertical_head_stage

    run, model = _RUN.run(), open_stage(_RUN.run_dir / _STAGE.value)
    head = vertical_head_stage(run, model) if _HEAD.config().vertical_head else None
    detector = _detector(run)
    stage = export_stage(
        run,
        model,
        _EXPORT.config(),
        vertical_head=head,
        detector=detector,
        base=Path(_OUTPUT.value) if _OUTPUT.value else None,
    )
    saved_model = stage.directory
    rows: list[tuple[str, object]] = [("SavedModel", saved_model)]
    if head:
        rows.append(("Routing", head.result["searches"]))
    if detector:
        rows.append(("Detector", detector.directory))
    if _SERVING_KIT.value:
        serving_kit(stage, Path(_SERVING_KIT.value))
        rows.append(("Serving kit", Path(_SERVING_KIT.value) / "README.md"))
    query = f"{command('tools/query_server.py', saved_model=saved_model)} --image=<image>"
    print_summary([*rows, ("Next", query)])


def _detector(run: Run) -> Stage | None:
    """Returns the stage of the detector to export."""
    if _DETECTOR.value is False:
        return None
    if _DETECTOR.value or _DETECTOR_FROM.value:
        return open_stage(Path(_DETECTOR_FROM.value or run.directory) / DETECTOR)
    return run.find(DETECTOR)


if __name__ == "__main__":
    app.run(main)
