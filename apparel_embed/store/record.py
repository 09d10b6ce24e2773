"""What is kept of a stage of a run: the record in its directory, `stage.json`."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import fingerprint_json, read_json

STAGE_FILE = "stage.json"
SCHEMA_VERSION = 1
REMEDY = "remove that directory or name another --run_dir"
_PACKAGES = ("apparel_embed", "tensorflow", "tensorflow-addons", "keras-cv", "numpy", "Pillow")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A finished stage.

    Attributes:
      directory: where its files are.
      fingerprint: of everything that made it.
      flags: the settings it was made with.
      result: what it reports, JSON values.
      seconds: that its work took; of a stage that was interrupted, its last part.
      skipped: whether it was found finished instead of being run.
      inputs: fingerprint of each input by its name.
    """

    directory: Path
    fingerprint: str
    flags: Mapping[str, Any]
    result: Mapping[str, Any]
    seconds: float
    skipped: bool = True
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the stage: that of its directory."""
        return self.directory.name


def open_stage(directory: Path) -> Stage:
    """Reads a finished stage.

    Raises:
      UserError: if there is none, or it is not finished.
    """
    if not directory.is_dir():
        partial = partial_of(directory)
        remedy = "it is not finished, run it again" if partial.is_dir() else "no stage is there"
        raise UserError(f"{directory}: {remedy}")
    record = read_record(directory)
    try:
        return Stage(
            directory,
            record["fingerprint"],
            record["flags"],
            record["result"],
            record["seconds"],
            inputs=record["inputs"],
        )
    except KeyError as error:
        raise UserError(
            f"{directory / STAGE_FILE}: not that of a finished stage, {error} is missing; {REMEDY}"
        ) from error


def find_stage(directory: Path) -> Stage | None:
    """Reads a finished stage; None where it is not there, or not finished.

    Raises:
      UserError: if the directory is no stage.
    """
    return open_stage(directory) if directory.is_dir() else None


def find_twin(made_of: Mapping[str, Any], twins: Sequence[Path]) -> Path | None:
    """Returns the first of some directories that holds a finished stage made of the same."""
    for twin in twins:
        if (twin / STAGE_FILE).is_file() and not differences_of(twin, made_of):
            return twin
    return None


def partial_of(directory: Path) -> Path:
    """Returns the directory of a stage while it is at work."""
    return directory.with_name(f"{directory.name}.partial")


def read_record(directory: Path) -> dict[str, Any]:
    """Returns the content of a stage file.

    Raises:
      UserError: if it cannot be read, or is no stage file.
    """
    path = directory / STAGE_FILE
    try:
        record = read_json(path)
        if not isinstance(record.get("flags"), dict) or not isinstance(record.get("inputs"), dict):
            raise ValueError("flags and inputs are missing")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read, so {directory} is not a stage ({error}); {REMEDY}"
        ) from error
    return record


def differences_of(directory: Path, made_of: Mapping[str, Any]) -> dict[str, str]:
    """Returns in what a stage was made differently, a sentence each.

    They are by the name of the flag, nested ones as `outer.inner`, or of the input.

    Raises:
      UserError: if the directory is no stage.
    """
    record = read_record(directory)
    old, new = flat_settings(record["flags"]), flat_settings(made_of["flags"])
    found = {
        name: f"was made with {name}={old.get(name)!r}, now it is {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    }
    inputs, now = record["inputs"], made_of["inputs"]
    for name in sorted({*inputs, *now}):
        if inputs.get(name) != now.get(name):
            found[name] = f"was made from another {name}"
    return found


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as `outer.inner`.

    Example:
      >>> flat_settings({"loss": {"margin": 0.3}, "steps": 9})
      {'loss.margin': 0.3, 'steps': 9}
    """
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flat_settings(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def finished_record(
    name: str, made_of: Mapping[str, Any], result: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Returns the content of a finished stage's file.

    Args:
      name: of the stage.
      made_of: `flags` and `inputs`.
      result: what the work returned, JSON values.
      seconds: that the work took.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": name,
        **made_of,
        "fingerprint": fingerprint_json(made_of),
        "versions": _versions(),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": seconds,
        "result": dict(result),
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }
