"""Directories made shard by shard, to be interrupted at any moment: datasets, bulk embeddings.

While it is made, a directory is called `<name>.partial/` and locked. `plan.json` in it holds all
that decides the result, `progress/` what is known of each finished shard. A summary, the plan's
values and those of the result, is written last; then plan and progress go, and the directory gets
its name. A store cannot rename a directory, and has no locks: there it has its name from the start,
and two processes would do the same work twice. A process may be killed between any two lines of
this file: the next call resumes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from pyarrow import fs

from apparel_embed.common.errors import UserError, check_format
from apparel_embed.common.files import disk_errors_as_user_errors, sync_tree
from apparel_embed.common.locations import file_names, is_remote, locate, write_aside
from apparel_embed.common.locks import only_writer

_PLAN_FILE = "plan.json"
_PROGRESS = "progress"
# What differs, in words, where the values are fingerprints.
_OTHERS = {
    "manifest_sha256": "the manifest is another",
    "image_sizes_sha256": "image files have changed",
    "fingerprint": "the images are others",
    "model": "the model is another",
}

Plan = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ShardedDirectory:
    """A directory of shards, made or to be made.

    Attributes:
      output: where it lies once it is whole, a path or a URI.
      summary: name of the file that is written last.
      kind: what it is, in words.
    """

    output: str
    summary: str
    kind: str

    @property
    def work(self) -> str:
        """Where it is written."""
        if is_remote(self.output):
            return self.output
        return f"{locate(self.output)[1].rstrip('/')}.partial"

    def make(self, plan: Plan, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Makes the directory, resumes an interrupted one, or finds it finished.

        Args:
          plan: all that decides the result, JSON values.
          work: writes what is missing into the directory `work`, and returns the result.

        Returns:
          The summary: plan and result.

        Raises:
          UserError: it, or its partial directory, was made from something else or is something
            else; another process is making it; or the disk fails.
        """
        found = self.find_finished(plan)
        if found is None:
            with self._locked():
                # Another process may have finished it in between.
                found = self.find_finished(plan) or self._make(plan, work)
        else:
            logging.info("%s: finished before, skipped", self.output)
        return found

    def find_finished(self, plan: Plan) -> dict[str, Any] | None:
        """Returns the summary of a finished directory; None where there is none.

        Raises:
          UserError: it was made from something else, or something else is there.
        """
        found = self._read(self.output, self.summary, plan)
        if found is None and not is_remote(self.output):
            path = Path(locate(self.output)[1])
            if path.exists() and not (path.is_dir() and not any(path.iterdir())):
                raise UserError(
                    f"--output={self.output} exists and is no {self.kind}; give another --output"
                )
        return found

    def is_begun(self, plan: Plan) -> bool:
        """Returns whether a call was interrupted; raises a UserError if it had another plan."""
        return self._read(self.work, _PLAN_FILE, plan) is not None

    def missing(self, names: Sequence[str]) -> list[int]:
        """Returns the numbers of the shards that are not finished, given all their file names."""
        done, files = file_names(f"{self.work}/{_PROGRESS}"), file_names(self.work)
        return [
            shard
            for shard, name in enumerate(names)
            if f"{shard:05d}.json" not in done or name not in files
        ]

    def remember(self, what: int | str, value: Mapping[str, Any]) -> None:
        """Notes what is known of a shard, which is finished then, or of anything else."""
        _write_json(self.scratch(_note_name(what)), value)

    def recall(self, what: int | str) -> dict[str, Any] | None:
        """Returns what was noted; None if nothing was."""
        return _read_json(self.scratch(_note_name(what)))

    def scratch(self, name: str) -> str:
        """Returns the location of a file that goes when the directory is whole."""
        return f"{self.work}/{_PROGRESS}/{name}"

    def _read(self, directory: str, name: str, plan: Plan) -> dict[str, Any] | None:
        """Returns a plan or summary, checked to be of the same plan; None where there is none."""
        found = _read_json(f"{directory}/{name}")
        if found is not None:
            remedy = "remove it or give another --output"
            check_format(directory, self.kind, found, plan["schema_version"], remedy)
            old, new = _flat({key: found.get(key) for key in plan}), _flat(plan)
            differences = [
                _OTHERS.get(name) or f"{name} is {old.get(name)} there, {new.get(name)} now"
                for name in {**old, **new}
                if old.get(name) != new.get(name)
            ]
            if differences:
                raise UserError(
                    f"{directory} was made from something else: {'; '.join(differences)}; "
                    "give another --output (of run_pipeline: --run_dir) or remove it"
                )
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if is_remote(self.output):
            yield
            return
        path = Path(locate(self.output)[1])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output={self.output} cannot be made: {error.strerror}") from error
        with disk_errors_as_user_errors(path), only_writer(path):
            yield

    def _make(self, plan: Plan, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        # It is whole but for its name if the process was killed just then.
        if self._read(self.work, self.summary, plan) is None:
            self._begin(plan)
            result = work()
            if not is_remote(self.work):
                sync_tree(Path(self.work))
            _write_json(f"{self.work}/{self.summary}", {**plan, **result})
        return self._publish()

    def _begin(self, plan: Plan) -> None:
        """Records the plan in an empty directory, or finds it there."""
        self._remove_temporaries()
        if not self.is_begun(plan):
            if not is_remote(self.work) and os.path.isdir(self.work) and os.listdir(self.work):
                raise UserError(f"{self.work} exists and was not made as a {self.kind}; remove it")
            _write_json(f"{self.work}/{_PLAN_FILE}", plan)

    def _remove_temporaries(self) -> None:
        """Removes what processes left that were killed while they wrote."""
        for directory in (self.work, f"{self.work}/{_PROGRESS}"):
            for name in file_names(directory):
                if name.startswith("."):
                    system, path = locate(f"{directory}/{name}")
                    system.delete_file(path)

    def _publish(self) -> dict[str, Any]:
        """Removes what was only needed on the way, gives the result its name and returns it."""
        self._remove_temporaries()
        system, path = locate(self.work)
        for info in system.get_file_info([f"{path}/{_PROGRESS}", f"{path}/{_PLAN_FILE}"]):
            if info.type == fs.FileType.Directory:
                system.delete_dir(info.path)
            elif info.type == fs.FileType.File:
                system.delete_file(info.path)
        if not is_remote(self.output):
            os.replace(path, Path(locate(self.output)[1]))
        return _read_json(f"{self.output}/{self.summary}") or {}


def _note_name(what: int | str) -> str:
    return f"{what:05d}.json" if isinstance(what, int) else f"{what}.json"


def _flat(plan: Plan) -> dict[str, Any]:
    """Returns a plan's values, those of its parts beside them."""
    parts = [value if isinstance(value, Mapping) else {key: value} for key, value in plan.items()]
    return {key: value for part in parts for key, value in part.items()}


def _read_json(location: str) -> dict[str, Any] | None:
    """Returns the value in a file, None where there is none."""
    system, path = locate(location)
    if system.get_file_info(path).type != fs.FileType.File:
        return None
    with system.open_input_stream(path) as file:
        text = file.read()
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        directory = location.rpartition("/")[0]
        raise UserError(f"{location}: is damaged ({error}); remove {directory}") from error


def _write_json(location: str, value: Mapping[str, Any]) -> None:
    with write_aside(location) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
