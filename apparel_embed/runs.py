"""The run directory: stages that are skipped when done and go on when interrupted.

A stage lives in `<run>/<stage>/`. While it is at work the directory is called
`<run>/<stage>.partial/`; it is renamed when whole. `stage.json` holds what made it: flags and
fingerprints of its inputs, which together are its own fingerprint.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from apparel_embed.errors import UserError
from apparel_embed.files import fingerprint_json, read_json, write_json

STAGE_FILE = "stage.json"
SCHEMA_VERSION = 1
_REMEDY = "remove that directory or name another --run_dir"
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
    if not (directory / STAGE_FILE).is_file():
        partial = directory.with_name(f"{directory.name}.partial")
        remedy = "it is not finished, run it again" if partial.is_dir() else "no stage is there"
        raise UserError(f"{directory}: {remedy}")
    try:
        record = read_json(directory / STAGE_FILE)
        return Stage(
            directory,
            record["fingerprint"],
            record["flags"],
            record["result"],
            record["seconds"],
            inputs=record["inputs"],
        )
    except (ValueError, KeyError) as error:
        raise UserError(f"{directory / STAGE_FILE}: not a stage file ({error})") from error


def find_stage(directory: Path) -> Stage | None:
    """Reads a finished stage; None where it is not there, or not finished.

    Raises:
      UserError: if the directory is no stage.
    """
    return open_stage(directory) if directory.is_dir() else None


def run_stage(
    directory: Path,
    *,
    flags: Mapping[str, Any],
    inputs: Mapping[str, str],
    work: Callable[[Path], Mapping[str, Any]],
    renewed: bool | Collection[str] = False,
    twins: Sequence[Path] = (),
) -> Stage:
    """Runs a stage, or finds it finished, by its own or another name.

    Args:
      directory: `<run>/<stage>`.
      flags: settings that decide the result, JSON values.
      inputs: fingerprint of each input by its name.
      work: does the stage's work in the directory it is given, which holds what an interrupted
        call left there, and returns the result as JSON values.
      renewed: whether a stage that was made with other flags or inputs is made anew and takes the
        old one's place, or names of the flags of which this holds: for what only tells of other
        stages' results, and can be made again from them.
      twins: directories where the same work may have been done by another name. The first finished
        stage among them that was made with the same flags and inputs is copied.

    Returns:
      The finished stage.

    Raises:
      UserError: if the stage, finished or begun, was made with other flags or inputs and is not
        to be renewed: nothing else is overwritten.
    """
    made_of = {"flags": dict(flags), "inputs": dict(inputs)}
    fingerprint = fingerprint_json(made_of)
    partial = directory.with_name(f"{directory.name}.partial")
    if directory.exists():
        differences = _differences(directory, made_of)
        if not differences:
            logging.info("%s: finished before, skipped", directory)
            return open_stage(directory)
        _refuse_unless(renewed, directory, differences)
        logging.info("%s: %s; made anew", directory, "; ".join(differences.values()))
    elif not partial.exists():
        for twin in twins:
            if (twin / STAGE_FILE).is_file() and not _differences(twin, made_of):
                logging.info("%s: the same as %s, copied", directory, twin)
                return _copy(open_stage(twin), directory)
    _begin(partial, made_of, renewed)
    start = time.monotonic()
    result = work(partial)
    record = {
        "schema_version": SCHEMA_VERSION,
        "stage": directory.name,
        **made_of,
        "fingerprint": fingerprint,
        "versions": _versions(),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "result": dict(result),
    }
    write_json(partial / STAGE_FILE, record)
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        # The old one stays until the new one is whole, and goes at once and not file by file.
        directory.rename(old)
    partial.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
    return dataclasses.replace(open_stage(directory), skipped=False)


def _copy(twin: Stage, directory: Path) -> Stage:
    """Copies a finished stage aside, and gives the copy its name when it is whole."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        shutil.copytree(twin.directory, aside, dirs_exist_ok=True)
        record = read_json(aside / STAGE_FILE)
        write_json(aside / STAGE_FILE, {**record, "stage": directory.name})
        aside.rename(directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be copied from {twin.directory} ({error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return open_stage(directory)


def _begin(partial: Path, made_of: Mapping[str, Any], renewed: bool | Collection[str]) -> None:
    """Makes the directory of a stage at work, or finds the one to go on with."""
    if partial.exists():
        differences = _differences(partial, made_of)
        if not differences:
            logging.info("%s: going on", partial)
        else:
            _refuse_unless(renewed, partial, differences)
            shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / STAGE_FILE, made_of)


def _differences(directory: Path, made_of: Mapping[str, Any]) -> dict[str, str]:
    """Returns in what a stage was made differently: by name of the flag or input, a sentence.

    Raises:
      UserError: if the directory is no stage.
    """
    try:
        record = read_json(directory / STAGE_FILE)
    except (OSError, ValueError) as error:
        raise UserError(f"{directory}: is there but is not a stage ({error}); {_REMEDY}") from error
    found = {}
    for part in ("flags", "inputs"):
        old, new = record.get(part, {}), made_of[part]
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                found[key] = f"was made with {key}={old.get(key)!r}, now it is {new.get(key)!r}"
    return found


def _refuse_unless(
    renewed: bool | Collection[str], directory: Path, differences: Mapping[str, str]
) -> None:
    for name, difference in differences.items():
        if not (renewed if isinstance(renewed, bool) else name in renewed):
            raise UserError(f"{directory}: {difference}; {_REMEDY}")


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }
