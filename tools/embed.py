r"""Embeds any number of images into Parquet files.

    python tools/embed.py --model=runs/mine/saved_model --manifest=catalogue.csv --output=embeddings

Instead of --manifest, --images=DIRECTORY embeds all images in a directory, and --prepared=DIRECTORY
a prepared dataset. --model is a SavedModel or a stage of a run, such as runs/mine/student. Images
that cannot be embedded are listed in <output>/rejects.csv. After an interruption, the same command
resumes.

With --detect, a model with a detector writes one row per garment that it finds in an image.

If one machine is not enough, the workers of a Dask cluster do the same work:

    dask scheduler --host=HOST --port=8786
    dask worker tcp://HOST:8786 --nthreads=1 --memory-limit=0
    python tools/embed.py ... --cluster=tcp://HOST:8786

docs/scaling.md explains how many workers to start where, and what happens when one dies.
"""

from apparel_embed.cli import app
from apparel_embed.cli.embed_flags import EmbedFlags
from apparel_embed.cli.ending import NOTHING_WRITTEN, print_summary
from apparel_embed.cli.shared_flags import dry_run_flag
from apparel_embed.inference.bulk import REJECTS_FILE

_EMBED = EmbedFlags()
_DRY_RUN = dry_run_flag()


def main() -> None:
    """Embeds the images and prints a summary."""
    if _DRY_RUN.value:
        print_summary([("Embeddings", _EMBED.plan()), NOTHING_WRITTEN])
        return
    output, found = _EMBED.run()
    embedded = f"{found['rows']} rows of {found['embedded']} images, {found['dim']} dimensions"
    rows = [("Embeddings", f"{output} ({embedded})")]
    if found["rejected"]:
        rows.append(("Rejected", f"{found['rejected']} images, see {output}/{REJECTS_FILE}"))
    first = f"{output}/{found['shards'][0]['file']}"
    print_summary([*rows, ("Next", f"pyarrow.parquet.read_table({first!r})")])


if __name__ == "__main__":
    app.run(main, resumes=True)
