r"""Fills the index that pictures are searched in, and switches to it when it is whole.

    python tools/build_index.py --run_dir=runs/mine
    python tools/build_index.py --run_dir=runs/mine --embeddings=embeddings/unified.parquet
    python tools/build_index.py --run_dir=runs/mine --bulk=new_products.parquet
    python tools/build_index.py --run_dir=runs/mine --bulk=catalogue.parquet --replace_all
    python tools/build_index.py --run_dir=runs/mine --delete_item=dress-17

Without --embeddings and --bulk it embeds the prepared dataset's gallery with the SavedModel, which
takes the place of the gallery that is there. --bulk adds, and replaces picture by picture.
--replace_all removes all that is not given; without it no more than a tenth is ever removed.
--delete and --delete_item remove what they name from the pictures that answer. A new model gets a
collection of its own beside the old ones, which answer until the new one is whole. --dry_run tells
what would be added, and what removed.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags, logging

from apparel_embed.cli import app
from apparel_embed.cli.dry_run_flags import DryRunFlag
from apparel_embed.cli.ending import NOTHING_WRITTEN, command, tell_end
from apparel_embed.cli.index_flags import IndexFlags
from apparel_embed.cli.search_flags import SearchRunFlags
from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted
from apparel_embed.data.manifest import SPLITS
from apparel_embed.search.build import fill_index, named_keys, plan_index, remove_pictures
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
    "by the same model, to be added",
)
_REPLACE_ALL = flags.DEFINE_bool(
    "replace_all", False, "remove all pictures of this model that are not among those given"
)
_DELETE = flags.DEFINE_multi_string(
    "delete",
    None,
    "picture to remove: its key, or its path or URI as the manifest has it; repeat it",
)
_DELETE_ITEM = flags.DEFINE_multi_string(
    "delete_item", None, "item to remove with all its pictures; repeat it"
)
_SWITCH = flags.DEFINE_bool("switch", True, "let this model's pictures answer once they are whole")
_DRY_RUN = DryRunFlag()
flags.mark_flags_as_mutual_exclusive(["embeddings", "bulk", "delete"])
flags.mark_flags_as_mutual_exclusive(["embeddings", "bulk", "delete_item"])


def main() -> None:
    """Fills the index, or removes from it, and says what was done."""
    if _DELETE.value or _DELETE_ITEM.value:
        if _REPLACE_ALL.value or _SPLITS.value:
            raise UserError("--delete and --delete_item: not with --replace_all or --split")
        remove()
        return
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
            replace_all=_REPLACE_ALL.value,
            switch=_SWITCH.value,
        )
    if done.unknown:
        logging.warning(
            "the model has never seen these verticals of the index: %s. A search in all verticals "
            "finds them, but worse than those it was trained on; train it anew with them",
            ", ".join(done.unknown),
        )
    tell_end(
        [
            (
                "Index",
                f"model {done.version.model[:16]}, {counted(done.version.pictures, 'picture')} in "
                f"{counted(len(done.version.verticals), 'vertical')}; {done.upserted:,} written, "
                f"{done.deleted:,} removed, {done.invalid:,} without embedding",
            ),
            ("Answers", "yes" if _SWITCH.value else "no, call without --noswitch"),
            ("Service", "one that runs on a file shows this after a restart"),
            ("Next", command("tools/serve_search.py", **_RUN.again)),
        ]
    )


def remove() -> None:
    """Removes what is named from the pictures that answer."""
    with _RUN.filled_index(to_write=not _DRY_RUN.is_given) as index:
        version = index.current()
        if version is None:
            raise UserError(f"{_RUN.index_uri}: no version of the index is whole; fill it first")
        keys = named_keys(index, version, _DELETE.value or [], _DELETE_ITEM.value or [])
        if _DRY_RUN.is_given:
            tell_end(
                [
                    ("Pictures", f"{len(keys):,} of {version.pictures:,} would be removed"),
                    NOTHING_WRITTEN,
                ]
            )
            return
        version = remove_pictures(index, version, keys)
    tell_end(
        [
            ("Index", f"{counted(len(keys), 'picture')} removed, {version.pictures:,} left"),
            ("Service", "one that runs on a file shows this after a restart"),
            ("Next", command("tools/serve_search.py", **_RUN.again)),
        ]
    )


def tell_plan(source: IndexSource) -> None:
    """Says what would be done."""
    with _RUN.index_if_there() as index:
        plan = plan_index(index, source, replace_all=_REPLACE_ALL.value)
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
                f"{plan.pictures:,}, {plan.new:,} of them new; {plan.removed:,} would be removed",
            ),
            NOTHING_WRITTEN,
        ]
    )


if __name__ == "__main__":
    app.run(main)
