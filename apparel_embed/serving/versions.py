"""Versions of a SavedModel: directories named by numbers, as TensorFlow Serving takes them."""

from __future__ import annotations

from pathlib import Path

SAVED_MODEL = "saved_model"
"""Directory of the versions in a run."""


def saved_model_versions(base: Path) -> list[Path]:
    """Returns the directories of a SavedModel's versions, the newest last.

    Args:
      base: directory that they are in; one that is not there has none.
    """
    paths = base.iterdir() if base.is_dir() else ()
    return sorted(
        (path for path in paths if path.name.isdecimal()), key=lambda path: int(path.name)
    )
