r"""Fills the search index, and switches to it when it is complete.

    python tools/build_index.py --run_dir=runs/mine
    python tools/build_index.py --run_dir=runs/mine --embeddings=embeddings/unified.parquet
    python tools/build_index.py --run_dir=runs/mine --bulk=new_products.parquet
    python tools/build_index.py --run_dir=runs/mine --bulk=catalogue.parquet --replace_all
    python tools/build_index.py --run_dir=runs/mine --delete_item=dress-17
    python tools/build_index.py --run_dir=runs/mine --delta=photos/night.csv
    python tools/build_index.py --run_dir=runs/mine --roll_back_to=3
    python tools/build_index.py --run_dir=runs/old --index_uri=runs/mine/index.db --switch_only

Without --embeddings and --bulk it embeds the prepared dataset's gallery with the SavedModel and
replaces the gallery in the index. --bulk adds images and replaces those already in the index.
--replace_all removes all other images; without it, filling removes at most a tenth. --delete and
--delete_item remove the named images and items. A new model's embeddings are stored next to the old
ones, which answer until the new ones are complete. --dry_run shows what would be added and removed.

--delta adds, changes and removes the rows of a table (docs/daily_changes.md), and embeds only new
content. --roll_back_to undoes deltas and removals. --switch_only returns to an earlier model.
"""

from collections.abc import Callable
from pathlib import Path

from absl import flags, logging

from apparel_embed.cli import app
from apparel_embed.cli.define import ConfigFlags, define
from apparel_embed.cli.ending import NOTHING_WRITTEN, command, print_summary
from apparel_embed.cli.search_flags import SearchRunFlags
from apparel_embed.cli.shared_flags import dry_run_flag
from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted
from apparel_embed.search.config import IndexSource
from apparel_embed.search.index import IndexSettings, VectorIndex, Version

_RUN = SearchRunFlags()
_SETTINGS = ConfigFlags(IndexSettings, "Index")
_SOURCE = ConfigFlags(IndexSource)
_REPLACE_ALL = define(
    "replace_all", False, "remove all of this model's images that are not among those given"
)
_DELETE = define(
    "delete",
    None,
    "image to remove: its key, or its path or URI as in the manifest; may be repeated",
    repeat=True,
)
_DELETE_ITEM = define(
    "delete_item", None, "item to remove with all its images; may be repeated", repeat=True
)
_DELTA = define(
    "delta",
    None,
    "CSV or Parquet file of changes: a manifest with a column change, add or remove; its image "
    "paths are relative to its own directory",
)
_MOST_REMOVED = define(
    "most_removed", 0.1, "share of the index that --delta may remove", 0.0, 1.0, rare=True
)
_ROLL_BACK_TO = define(
    "roll_back_to",
    None,
    "edition of the index to return to, as printed after a delta; an index file keeps the last ten",
    0,
    kind=int,
)
_SWITCH = define("switch", True, "search this model's images once they are complete")
_SWITCH_ONLY = define(
    "switch_only", False, "switch to this model's images in the index, without filling it"
)
_DRY_RUN = dry_run_flag()
Change = Callable[[VectorIndex, Version], list[tuple[str, object]]]
for _removal in ("delete", "delete_item"):
    flags.mark_flags_as_mutual_exclusive(["embeddings", "bulk", "delta", "roll_back_to", _removal])


def main() -> None:
    """Fills, switches or changes the index, and prints a summary."""
    change = chosen_change()
    if _SWITCH_ONLY.value:
        if change or _REPLACE_ALL.value or any(map(_SOURCE.is_given, ("bulk", "embeddings"))):
            raise UserError("--switch_only: remove the flags that fill or change the index")
        rows = switch()
    elif change:
        if _REPLACE_ALL.value or _SOURCE.is_given("splits"):
            raise UserError(
                "--delete, --delete_item, --delta and --roll_back_to cannot be combined with "
                "--replace_all or --split"
            )
        rows = change_index(change)
    else:
        source = _SOURCE.config(saved_model=_RUN.newest_model(), prepared=_RUN.prepared)
        rows = plan(source) if _DRY_RUN.value else fill(source)
    if _DRY_RUN.value:
        print_summary([*rows, NOTHING_WRITTEN])
    else:
        service = (
            "Service",
            "a running service uses it, too; restart it after a change of model or dataset",
        )
        # The service needs the directory of the images that a delta added in order to show them.
        added = Path(_DELTA.value).parent if _DELTA.value else None
        following = command("tools/serve_search.py", **_RUN.again, images=added)
        print_summary([*rows, service, ("Next", following)])


def fill(source: IndexSource) -> list[tuple[str, object]]:
    """Fills the index; returns the summary's rows."""
    from apparel_embed.search.build import fill_index

    with _RUN.index() as index:
        done = fill_index(
            index, source, _SETTINGS.config(), replace_all=_REPLACE_ALL.value, switch=_SWITCH.value
        )
    if done.unknown:
        logging.warning(
            "the model was not trained on these verticals of the index: %s. A search in all "
            "verticals finds them, but less accurately; train a new model with them",
            ", ".join(done.unknown),
        )
    version = done.version
    return [
        (
            "Index",
            f"model {version.model[:16]}, {counted(version.images, 'image')} in "
            f"{counted(len(version.verticals), 'vertical')}; {done.upserted:,} written, "
            f"{done.deleted:,} removed, {done.invalid:,} without an embedding",
        ),
        ("Answers", "yes" if _SWITCH.value else "no; run it again without --noswitch"),
    ]


def switch() -> list[tuple[str, object]]:
    """Switches to a model's images that are still in the index; returns the summary's rows."""
    from apparel_embed.search.build import saved_model_fingerprint
    from apparel_embed.search.index import check_complete

    model = saved_model_fingerprint(_RUN.newest_model())
    with _RUN.filled_index(to_write=not _DRY_RUN.value) as index:
        version = index.version(model)
        check_complete(version, _RUN.index_uri, model)
        assert version is not None
        if not _DRY_RUN.value:
            index.switch(version)
    answers = "would answer" if _DRY_RUN.value else "answers"
    return [
        (
            "Index",
            f"model {model[:16]} {answers} with {counted(version.images, 'image')}, edition "
            f"{version.edition}",
        )
    ]


def change_index(change: Change) -> list[tuple[str, object]]:
    """Changes the current version's images, or plans to; returns the summary's rows."""
    with _RUN.filled_index(to_write=not _DRY_RUN.value) as index:
        version = index.current()
        if version is None:
            raise UserError(f"{_RUN.index_uri}: the index has no complete version; fill it first")
        return change(index, version)


def remove(index: VectorIndex, version: Version) -> list[tuple[str, object]]:
    """Removes the images that --delete and --delete_item name."""
    from apparel_embed.search.build import named_keys, remove_images

    keys = named_keys(index, version, _DELETE.value or [], _DELETE_ITEM.value or [])
    if _DRY_RUN.value:
        return [("Images", f"{len(keys):,} of {version.images:,} would be removed")]
    removed = ("Removed", counted(len(keys), "image"))
    return [removed, *_edition(remove_images(index, version, keys), version)]


def apply(index: VectorIndex, version: Version) -> list[tuple[str, object]]:
    """Applies a delta."""
    from apparel_embed.search.delta import apply_delta
    from apparel_embed.search.matching import answering_model, answering_version
    from apparel_embed.serving.local import LocalModel

    saved_model = _RUN.named_model or answering_model(index, _RUN.versions)
    # An aligned model may search the index, but must not add to it.
    answering_version(index, saved_model, exactly=True)
    model = None if _DRY_RUN.value else LocalModel(saved_model)
    done = apply_delta(
        index,
        version,
        Path(_DELTA.value),
        version.image_settings,
        model and (lambda images: model.embed(images)[:2]),
        most_removed=_MOST_REMOVED.value,
    )
    for image in done.unknown:
        logging.warning("%s: %s is not in the index; nothing to remove", _DELTA.value, image)
    for image, reason in done.rejected:
        logging.warning("%s: %s: %s; it was left unchanged", _DELTA.value, image, reason)
    counts = ", ".join(f"{count:,} {what}" for what, count in done.counts.items())
    rows = [("Would be" if _DRY_RUN.value else "Delta", counts)]
    if done.rejected or done.unknown:
        problems = f"{len(done.rejected):,} not embedded, {len(done.unknown):,} to remove not found"
        rows.append(("Logged above", problems))
    return [*rows, *_edition(done.version, version)]


def roll_back(index: VectorIndex, version: Version) -> list[tuple[str, object]]:
    """Returns to an earlier edition."""
    if _DRY_RUN.value:
        return [("Edition", f"{version.edition} would become {_ROLL_BACK_TO.value}, if still kept")]
    return _edition(index.roll_back(version, _ROLL_BACK_TO.value), version)


def _edition(now: Version, before: Version) -> list[tuple[str, object]]:
    summary = f"edition {now.edition}, {counted(now.images, 'image')}"
    if now.edition > before.edition:
        summary += f"; --roll_back_to={before.edition} undoes this"
    return [("Index", summary)]


def chosen_change() -> Change | None:
    """Returns the function that changes the current version; None if the index is to be filled."""
    if _DELETE.value or _DELETE_ITEM.value:
        return remove
    if _DELTA.value:
        return apply
    return None if _ROLL_BACK_TO.value is None else roll_back


def plan(source: IndexSource) -> list[tuple[str, object]]:
    """Returns the summary's rows of a dry run."""
    from apparel_embed.search.build import plan_index

    with _RUN.index_if_exists() as index:
        found = plan_index(index, source, replace_all=_REPLACE_ALL.value)
    if found.answers:
        answers = "answers now and would afterwards"
    else:
        answers = "would answer" if _SWITCH.value else "would not answer because of --noswitch"
    return [
        ("Index", f"{_RUN.index_uri}, {'exists' if index else 'would be created'}"),
        ("Model", f"{found.model[:16]}, {answers}"),
        (
            "Images",
            f"{found.images:,}, of which {found.new:,} new; {found.removed:,} would be removed",
        ),
    ]


if __name__ == "__main__":
    app.run(main)
