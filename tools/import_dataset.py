r"""Writes the manifest of a dataset on disk, without moving its images.

One folder per vertical with one folder per item, `<vertical>/<item>/<image>`:

    python tools/import_dataset.py --format=folders --root=photos --output=photos/manifest.csv \
      --test_fraction=0.2 --val_fraction=0.1

Any CSV, TSV, JSON lines, Parquet or Excel file:

    python tools/import_dataset.py --format=table --table=export.csv --root=photos \
      --output=photos/manifest.csv --columns=image:photo,item_id:sku,vertical:category \
      --map_verticals=blouses:tops,t-shirts:tops,umbrellas: --test_fraction=0.2

Structured file names such as mh01-black_main.jpg, with all colours of a style in one split:

    python tools/import_dataset.py --format=table --root=photos --output=photos/manifest.csv \
      --pattern='(?P<style_id>(?P<kind>[a-z]+)\d+)-(?P<colour>[a-z]+)_(?P<view>[a-z]+)' \
      --columns='item_id:{style_id}-{colour},vertical:kind,role:view' \
      --map_verticals=mh:hoodies,wh:hoodies --map_roles=main:gallery,back:query \
      --split_by=style_id --test_fraction=0.3

Published datasets need only --format, --root and --output; their counts are compared with the
published ones. Errors name the file and row of the dataset; nothing is written in that case.
"""

from absl import logging

from apparel_embed.cli import app
from apparel_embed.cli.ending import command, print_summary, training_command
from apparel_embed.cli.import_flags import ImportFlags
from apparel_embed.data.importers.importing import import_dataset, render_counts

_IMPORT = ImportFlags()


def main() -> None:
    """Imports the dataset and prints a summary."""
    result = import_dataset(_IMPORT.config())
    for warning in result.warnings:
        logging.warning("%s", warning)
    for note in result.notes:
        print(note)
    if not result.is_new:
        print("The same manifest already exists; nothing was changed.")
    print(render_counts(result.table))
    manifest, health = _IMPORT.output, _IMPORT.output.parent / "health"
    print_summary(
        [
            ("Manifest", f"{_IMPORT.output} ({result.table.num_rows:,} rows)"),
            ("Next", command("tools/inspect_dataset.py", manifest=manifest, output=health)),
            ("Then", training_command(manifest)),
        ]
    )


if __name__ == "__main__":
    app.run(main)
