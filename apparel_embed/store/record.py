"""A stage of a run: what it is to be made of, and what is kept of it in `stage.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError, check_format
from apparel_embed.common.files import fingerprint_json, read_json

STAGE_FILE = "stage.json"
SCHEMA_VERSION = 3
REMEDY = "remove that directory or name another --run_dir"
_PACKAGES = ("apparel_embed", "tensorflow", "keras-cv", "numpy", "Pillow")
_OF_FINISHED = ("fingerprint", "flags", "result", "seconds", "finished")
# Each belongs to some releases of TensorFlow only.
_PACKAGES_OF_SOME = ("tf-keras", "tensorflow-addons")


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
      finished: when, as UTC in ISO 8601, which sorts by time; "" of one that is planned.
    """

    directory: Path
    fingerprint: str
    flags: Mapping[str, Any]
    result: Mapping[str, Any]
    seconds: float
    skipped: bool = True
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    finished: str = ""

    @property
    def name(self) -> str:
        """Name of the stage: that of its directory."""
        return self.directory.name


@dataclasses.dataclass(frozen=True)
class Workload:
    """What a stage trains.

    Attributes:
      triplet_steps: steps of combined models and specialists.
      student_steps: steps of the student.
      detector_steps: steps of the detector.
      views: augmented views of images that go through a frozen backbone once. Steps on these take
        milliseconds, and are not among those above.
    """

    triplet_steps: int = 0
    student_steps: int = 0
    views: int = 0
    detector_steps: int = 0

    def __add__(self, other: Workload) -> Workload:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other))
        return Workload(*(ours + theirs for ours, theirs in pairs))


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """A stage to be made.

    Attributes:
      directory: `<run>/<stage>`.
      flags: settings that decide the result, JSON values.
      inputs: fingerprint of each input by its name.
      work: does the stage's work in the directory it is given, which holds what an interrupted
        call left there, and returns the result as JSON values.
      overwrite: whether a stage made with other flags or inputs is replaced, or names of the flags
        of which this holds: for what can be made again from other stages' results.
      reuse_from: directories where the same work may have been done by another name. The first
        finished stage among them that was made with the same flags and inputs is copied.
      scratch: names of directories in the stage's that only an interrupted call has use for.
      on_all_workers: whether all processes that train together do the work, as trainings; else the
        chief does it alone.
      flag_names: what to call settings in messages, by their names, nested ones as `outer.inner`.
      size: how much work it is, in words; "" if that is not known.
      workload: what it trains.
    """

    directory: Path
    flags: Mapping[str, Any]
    inputs: Mapping[str, str]
    work: Callable[[Path], Mapping[str, Any]]
    overwrite: bool | Collection[str] = False
    reuse_from: Sequence[Path] = ()
    scratch: Sequence[str] = ()
    on_all_workers: bool = False
    flag_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    size: str = ""
    workload: Workload = Workload()

    @property
    def partial(self) -> Path:
        """The directory while the stage is at work."""
        return partial_of(self.directory)

    @property
    def made_of(self) -> dict[str, Any]:
        """What decides the result, as it stands in the stage's file."""
        return {"flags": dict(self.flags), "inputs": dict(self.inputs)}

    @property
    def begun(self) -> dict[str, Any]:
        """The content of the stage's file while it is at work."""
        return {"schema_version": SCHEMA_VERSION, **self.made_of}

    def planned(self) -> Stage:
        """Returns the stage as it would be made: without a result, but with its fingerprint."""
        fingerprint = fingerprint_json(self.made_of)
        return Stage(
            self.directory, fingerprint, self.flags, {}, 0.0, skipped=False, inputs=self.inputs
        )

    def differences(self, directory: Path) -> dict[str, str]:
        """Returns in what the stage in a directory was made differently, a sentence each.

        They are by the name of the flag, nested ones as `outer.inner`, or of the input.

        Raises:
          UserError: if the directory is no stage.
        """
        record = read_record(directory)
        old, new = flat_settings(record["flags"]), flat_settings(self.flags)
        found = {
            name: f"was made with {self.flag_names.get(name, name)}={old.get(name)!r}, now it is "
            f"{new.get(name)!r}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        }
        for name in sorted({*record["inputs"], *self.inputs}):
            if record["inputs"].get(name) != self.inputs.get(name):
                found[name] = f"was made from another {name}"
        return found

    def reusable(self) -> Path | None:
        """Returns the first directory of `reuse_from` with a finished stage made of the same."""
        for directory in self.reuse_from:
            if (directory / STAGE_FILE).is_file() and not self.differences(directory):
                return directory
        return None

    def record(self, result: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Returns the content of the finished stage's file.

        Args:
          result: what the work returned.
          seconds: that it took.
        """
        return {
            "stage": self.directory.name,
            **self.begun,
            "fingerprint": fingerprint_json(self.made_of),
            "versions": _versions(),
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "seconds": seconds,
            "result": dict(result),
        }


def open_stage(directory: Path) -> Stage:
    """Reads a finished stage.

    Raises:
      UserError: if there is none, or it is not finished.
    """
    if not directory.is_dir():
        is_begun = partial_of(directory).is_dir()
        remedy = "it is not finished, run it again" if is_begun else "no stage is there"
        raise UserError(f"{directory}: {remedy}")
    record = read_record(directory)
    try:
        values = {name: record[name] for name in _OF_FINISHED}
    except KeyError as error:
        raise UserError(
            f"{directory / STAGE_FILE}: not that of a finished stage, {error} is missing; {REMEDY}"
        ) from error
    return Stage(directory, **values, inputs=record["inputs"])


def find_stage(directory: Path) -> Stage | None:
    """Reads a finished stage; None where it is not there, or not finished.

    Raises:
      UserError: if the directory is no stage.
    """
    return open_stage(directory) if directory.is_dir() else None


def fingerprints(*stages: Stage | None) -> dict[str, str]:
    """Returns stages as inputs of another: fingerprints by name. Those that are None are none."""
    return {stage.name: stage.fingerprint for stage in stages if stage}


def partial_of(directory: Path) -> Path:
    """Returns the directory of a stage while it is at work."""
    return directory.with_name(f"{directory.name}.partial")


def read_record(directory: Path) -> dict[str, Any]:
    """Returns the content of a stage file.

    Raises:
      UserError: if it cannot be read, is no stage file, or of another format.
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
    check_format(directory, "stage", record, SCHEMA_VERSION, REMEDY)
    return record


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as `outer.inner`."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flat_settings(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    for name in _PACKAGES_OF_SOME:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
