"""Prepares images for training: decodes, rotates, crops and shrinks them.

    python tools/prepare_dataset.py --manifest=data/manifest.csv --output=data/prepared

The manifest is CSV or Parquet with one row per image: `image` (a path relative to the manifest,
an absolute path or a file:// URI), `item_id` and `vertical`; optional `split` (train, val, test,
unlabelled), `role` (query, gallery, both) and a box `x_min,y_min,x_max,y_max`. `item_id` may be
empty only in split unlabelled. Images that cannot be used are skipped and listed in rejects.csv.
After an interruption, the same command resumes.
"""

from pathlib import Path

from apparel_embed.cli import app
from apparel_embed.cli.data_flags import PrepareFlags
from apparel_embed.cli.define import define
from apparel_embed.cli.ending import NOTHING_WRITTEN, command, print_summary
from apparel_embed.cli.shared_flags import ProcessesFlag, dry_run_flag
from apparel_embed.data.prepare import plan_prepare, prepare

_MANIFEST = define("manifest", None, "manifest, CSV or Parquet", required=True)
_OUTPUT = define("output", None, "directory to write", required=True)
_PREPARE = PrepareFlags(photographs=True)
_PROCESSES = ProcessesFlag()
_DRY_RUN = dry_run_flag()


def main() -> None:
    """Prepares the dataset and prints a summary."""
    config = _PREPARE.config(Path(_MANIFEST.value), Path(_OUTPUT.value))
    if _DRY_RUN.value:
        found = plan_prepare(config)
        images = f"{len(found.dataset):,} images, {found.todo:,} to prepare"
        print_summary([("Prepared", f"{_OUTPUT.value}: {found.state} ({images})"), NOTHING_WRITTEN])
        return
    dataset = prepare(config, processes=_PROCESSES.value)
    for vertical, splits in dataset.info["counts"].items():
        print(f"  {vertical}: {', '.join(f'{split} {n}' for split, n in splits.items())}")
    if config.photographs:
        given = {"run_dir": "runs/mine", "prepared_photographs": dataset.directory}
        rows = [("Next", command("tools/train_detector.py", **given))]
    else:
        given = {"run_dir": "runs/mine", "prepared": dataset.directory}
        train = command(
            "tools/train_specialist.py", **given, verticals="all", stage="combined-start"
        )
        rows = [("Next", train), ("Then", command("tools/search_groups.py", **given))]
    rejected = f"{len(dataset)} images, {dataset.reject_count} rejected"
    print_summary([("Prepared", f"{dataset.directory} ({rejected})"), *rows])


if __name__ == "__main__":
    app.run(main, resumes=True)
