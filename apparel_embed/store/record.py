"""A stage of a run: its specification, and its record in `stage.json`."""

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
REMEDY = "remove that directory or choose another --run_dir"
_PACKAGES = ("apparel_embed", "tensorflow", "keras-cv", "numpy", "Pillow")
_OF_FINISHED = ("fingerprint", "flags", "result", "seconds", "finished")
# Each is used with some releases of TensorFlow only.
_PACKAGES_OF_SOME = ("tf-keras", "tensorflow-addons")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A finished stage.

    Attributes:
      directory: directory of its files.
      fingerprint: fingerprint of its flags and inputs.
      flags: settings it was made with.
      result: its results, JSON values.
      seconds: duration of its work; if it was interrupted, of the last call only.
      skipped: whether it was already finished, so not run.
      inputs: fingerprint of each input, by name.
      finished: time of completion, UTC in ISO 8601, which sorts by time; "" if only planned.
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
        """Name of the stage, which is its directory's."""
        return self.directory.name


@dataclasses.dataclass(frozen=True)
class Workload:
    """Amount of training in a stage.

    Attributes:
      triplet_steps: training steps of combined models and specialists.
      student_steps: training steps of the student.
      detector_steps: training steps of the detector.
      views: augmented views of images that pass through a frozen backbone once. Steps on their
        features take milliseconds and are not counted above.
    """

    triplet_steps: int = 0
    student_steps: int = 0
    views: int = 0
    detector_steps: int = 0

    def __add__(self, other: Workload) -> Workload:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other))
        return Workload(*map(sum, pairs))


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """Specification of a stage.

    Attributes:
      directory: `<run>/<stage>`.
      flags: settings that determine the result, JSON values.
      inputs: fingerprint of each input, by name.
      work: does the stage's work in the given directory, which contains the files of an
        interrupted call, if any, and returns the result as JSON values.
      overwrite: whether to replace a stage made with other flags or inputs, or the names of the
        flags that may differ. For stages that can be made again from others' results.
      reuse_from: directories where the same work may have been done under another name. The first
        finished stage among them that was made with the same flags and inputs is copied.
      scratch: subdirectories that only resuming needs; removed when the stage is finished.
      on_all_workers: whether all processes that train together do the work, as in training;
        otherwise the chief does it alone.
      flag_names: names of the settings in messages; keys of nested settings are `outer.inner`.
      size: amount of work, in words; "" if unknown.
      workload: amount of training.
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
        """The directory while the stage is being made."""
        return partial_of(self.directory)

    @property
    def made_of(self) -> dict[str, Any]:
        """Flags and inputs, as recorded in the stage's file."""
        return {"flags": dict(self.flags), "inputs": dict(self.inputs)}

    @property
    def begun(self) -> dict[str, Any]:
        """The content of the stage's file while it is being made."""
        return {"schema_version": SCHEMA_VERSION, **self.made_of}

    def planned(self) -> Stage:
        """Returns the stage as planned: with its fingerprint, without a result."""
        fingerprint = fingerprint_json(self.made_of)
        return Stage(
            self.directory, fingerprint, self.flags, {}, 0.0, skipped=False, inputs=self.inputs
        )

    def differences(self, directory: Path) -> dict[str, str]:
        """Returns how the stage in a directory was made differently, one sentence per difference.

        Keys are names of inputs and flags, nested ones as `outer.inner`.

        Raises:
          UserError: if the directory is not a stage.
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
        """Returns the first of `reuse_from` with a finished stage of the same flags and inputs."""
        for directory in self.reuse_from:
            if (directory / STAGE_FILE).is_file() and not self.differences(directory):
                return directory
        return None

    def record(self, result: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Returns the content of the stage's file once it is finished.

        Args:
          result: result of the work.
          seconds: duration of the work.
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
      UserError: if it does not exist or is not finished.
    """
    if not directory.is_dir():
        is_begun = partial_of(directory).is_dir()
        problem = "not finished; run it again" if is_begun else "stage does not exist"
        raise UserError(f"{directory}: {problem}")
    record = read_record(directory)
    try:
        values = {name: record[name] for name in _OF_FINISHED}
    except KeyError as error:
        raise UserError(
            f"{directory / STAGE_FILE}: the stage is not finished, {error} is missing; {REMEDY}"
        ) from error
    return Stage(directory, **values, inputs=record["inputs"])


def find_stage(directory: Path) -> Stage | None:
    """Reads a finished stage; returns None if it does not exist or is not finished.

    Raises:
      UserError: if the directory is not a stage.
    """
    return open_stage(directory) if directory.is_dir() else None


def fingerprints(*stages: Stage | None) -> dict[str, str]:
    """Returns the fingerprints of stages by name, as inputs of another stage; skips None."""
    return {stage.name: stage.fingerprint for stage in stages if stage}


def partial_of(directory: Path) -> Path:
    """Returns the directory of a stage while it is being made."""
    return directory.with_name(f"{directory.name}.partial")


def read_record(directory: Path) -> dict[str, Any]:
    """Returns the content of a stage file.

    Raises:
      UserError: if it cannot be read, is not a stage file, or has another format version.
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
    """Returns nested settings as a flat mapping with keys `outer.inner`."""
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
