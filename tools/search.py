r"""Searches the catalogue for an image and prints the items found.

    python tools/search.py --run_dir=runs/mine --image=street.jpg --box=10,20,200,300
    python tools/search.py --run_dir=runs/mine --image=front.jpg --image=back.jpg

--vertical names the vertical to search in. By default it is the one that the model predicts, if it
was exported with --vertical_head and its confidence reaches the measured threshold; otherwise all
are searched. --all_verticals always searches all. --noall_verticals always searches the predicted
one, which is faster, but wrong if the prediction is.

    python tools/search.py --run_dir=runs/mine --image=street.jpg --detect

finds the garments in a photograph and searches for each in its own vertical. It requires a model
that was exported with a detector.
"""

from pathlib import Path

from apparel_embed.cli import app
from apparel_embed.cli.define import define
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.search_flags import SearchRunFlags, SourceFlags
from apparel_embed.common.errors import UserError
from apparel_embed.search.config import Limits

_RUN = SearchRunFlags()
_SOURCES = SourceFlags(_RUN)
_IMAGE = define(
    "image",
    None,
    "query image file, in any format; repeat it for up to 8 images of one garment",
    repeat=True,
    required=True,
)
_BOX = define(
    "box", "", "box of the garment: x_min,y_min,x_max,y_max in pixels of the upright image"
)
_VERTICAL = define("vertical", None, "vertical to search in; by default see --all_verticals")
_ALL_VERTICALS = define(
    "all_verticals",
    None,
    "search in all verticals; --noall_verticals: in the one that the model predicts; by default in "
    "that one if its confidence reaches the threshold measured when the vertical head was trained",
    kind=bool,
)
_DETECT = define(
    "detect",
    False,
    "search for every garment that is detected in the image, each in its own vertical, or in all "
    "verticals with --all_verticals",
)
_K = define("k", 10, "items to find (for each garment with --detect)", 1, 100)


def main() -> None:
    """Searches and prints the table."""
    if _DETECT.value and (_BOX.value or _VERTICAL.value):
        raise UserError("--detect finds boxes and verticals itself; remove --box and --vertical")
    paths, k, everywhere = [*map(Path, _IMAGE.value)], _K.value, _ALL_VERTICALS.value
    if _DETECT.value and len(paths) > 1:
        raise UserError(f"--detect: expected one --image, got {len(paths)}")
    from apparel_embed.search.server import open_searcher
    from apparel_embed.search.shell import (
        search_files,
        search_garments_of_file,
        table_of,
        tables_of,
    )

    with _RUN.filled_index() as index:
        searcher, _ = open_searcher(index, _SOURCES.sources(index), Limits().max_pixels)
        if _DETECT.value:
            text = tables_of(search_garments_of_file(searcher, paths[0], k, everywhere))
        else:
            text = table_of(
                search_files(searcher, paths, k, _BOX.value, _VERTICAL.value, everywhere)
            )
    print(text)
    print_summary([("Next", command("tools/serve_search.py", **_RUN.again))])


if __name__ == "__main__":
    app.run(main)
