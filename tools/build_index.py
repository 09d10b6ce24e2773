r"""Fills the index that pictures are searched in, and switches to it when it is whole.

    python tools/build_index.py --run_dir=runs/mine
    python tools/build_index.py --run_dir=runs/mine --embeddings=embeddings/unified.parquet
    python tools/build_index.py --run_dir=runs/mine --bulk=catalogue.parquet

Without --embeddings and --bulk it embeds the prepared dataset's gallery with the SavedModel. Called
again it replaces what is there picture by picture and removes what is gone. A new model gets a
collection of its own beside the old ones, which answer until the new one is whole. --dry_run tells
how many pictures would be embedded, and how many removed.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.dry_run_flags import DryRunFlag
from apparel_embed.cli.ending import NOTHING_WRITTEN, command, tell_end
from apparel_embed.cli.index_flags import IndexFlags
from apparel_embed.cli.search_flags import SearchRunFlags
from apparel_embed.data.manifest import SPLITS
from apparel_embed.search.build import fill_index, plan_index
from apparel_embed.search.source import IndexSource

_RUN = SearchRunFlags()
_SETTINGS = IndexFlags()
_SPLITS = flags.DEFINE_multi_enum(
    "split", [], SPLITS, "index pictures of this split only; repeat it; by default all"
)
_EMBEDDINGS = flags.DEFINE_string(
    "embeddings",
    None,
    "Parquet file of `record` and `embedding`, made by the same model, instead of embedding anew",
)
_BULK = flags.DEFINE_string(
    "bulk",
    None,
    "Parquet file, or directory of some, of `image`, `item_id`, `vertical` and `embedding`, made "
    "by the same model, instead of a prepared dataset",
)
flags.mark_flags_as_mutual_exclusive(["embeddings", "bulk"])
_DELETE_OTHERS = flags.DEFINE_bool(
    "delete_others", True, "remove pictures of this model that are not among those given"
)
_SWITCH = flags.DEFINE_bool("switch", True, "let this model's pictures answer once they are whole")
_DRY_RUN = DryRunFlag()


def main() -> None:
    """Fills the index and says what was done."""
    source = IndexSource(
        saved_model=_RUN.newest_model(),
        prepared=_RUN.prepared,
        splits=tuple(_SPLITS.value),
        embeddings=Path(_EMBEDDINGS.value) if _EMBEDDINGS.value else None,
        bulk=Path(_BULK.value) if _BULK.value else None,
    )
    if _DRY_RUN.is_given:
        tell_plan(source)
        return
    with _RUN.index() as index:
        done = fill_index(
            index,
            source,
            _SETTINGS.settings(),
            delete_others=_DELETE_OTHERS.value,
            switch=_SWITCH.value,
        )
    tell_end(
        [
            (
                "Index",
                f"model {done.version.model[:16]}, {done.version.pictures} pictures in "
                f"{len(done.version.verticals)} verticals; {done.upserted} written, {done.deleted} "
                f"removed, {done.invalid} without embedding",
            ),
            ("Answers", "yes" if done.switched else "no, call without --noswitch"),
            ("Next", command("tools/serve_search.py", **_RUN.again)),
        ]
    )


def tell_plan(source: IndexSource) -> None:
    """Says what would be done."""
    with _RUN.index_if_there() as index:
        plan = plan_index(index, source, delete_others=_DELETE_OTHERS.value)
    if plan.answers:
        answers = "answers now and would afterwards"
    else:
        answers = "would answer" if _SWITCH.value else "would not answer, by --noswitch"
    tell_end(
        [
            ("Index", f"{_RUN.index_uri}, {'there' if index else 'would be made'}"),
            ("Model", f"{plan.model[:16]}, {answers}"),
            (
                "Pictures",
                f"{plan.pictures}, {plan.new} of them new; {plan.removed} would be removed",
            ),
            NOTHING_WRITTEN,
        ]
    )


if __name__ == "__main__":
    app.run(main)
