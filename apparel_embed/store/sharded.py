"""Directories made shard by shard that can be interrupted at any time: datasets, bulk embeddings.

While it is being made, a directory is called `<name>.partial/` and locked. Its `plan.json` contains
everything that determines the result, `progress/` a note about each finished shard. The summary,
the values of the plan and of the result, is written last; then plan and progress are removed and
the directory is renamed. A remote store has no locks and cannot rename directories: there it has
its final name from the start, and two processes would do the same work twice. A process may be
killed between any two lines of this file: the next call resumes.
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
# How to report differences of fingerprints.
_OTHERS = {
    "manifest_sha256": "the manifest differs",
    "image_sizes_sha256": "image files have changed",
    "fingerprint": "the images differ",
    "model": "the model differs",
}

Plan = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ShardedDirectory:
    """A directory of shards, finished or not.

    Attributes:
      output: its location once complete, a path or a URI.
      summary: name of the summary file, which is written last.
      kind: what it contains, for messages, e.g. "prepared dataset".
    """

    output: str
    summary: str
    kind: str

    @property
    def work(self) -> str:
        """Location that shards are written to."""
        if is_remote(self.output):
            return self.output
        return f"{locate(self.output)[1].rstrip('/')}.partial"

    def make(self, plan: Plan, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Makes the directory, resumes an interrupted one, or finds it finished.

        Args:
          plan: everything that determines the result, JSON values.
          work: writes the missing shards into the directory `work`, and returns the result.

        Returns:
          The summary: plan and result.

        Raises:
          UserError: if it or its partial directory was made with another plan or contains other
            files, if another process is making it, or if the disk fails.
        """
        found = self.find_finished(plan)
        if found is None:
            with self._locked():
                # Another process may have finished it in between.
                found = self.find_finished(plan) or self._make(plan, work)
        else:
            logging.info("%s: already finished, skipped", self.output)
        return found

    def find_finished(self, plan: Plan) -> dict[str, Any] | None:
        """Returns the summary of a finished directory; None if it does not exist.

        Raises:
          UserError: if it was made with another plan, or contains other files.
        """
        found = self._read(self.output, self.summary, plan)
        if found is None and not is_remote(self.output):
            path = Path(locate(self.output)[1])
            if path.exists() and not (path.is_dir() and not any(path.iterdir())):
                raise UserError(
                    f"--output={self.output} exists and is not a {self.kind}; choose another "
                    "--output"
                )
        return found

    def is_begun(self, plan: Plan) -> bool:
        """Returns whether a call was interrupted; raises a UserError if its plan was different."""
        return self._read(self.work, _PLAN_FILE, plan) is not None

    def missing(self, names: Sequence[str]) -> list[int]:
        """Returns the numbers of the unfinished shards, given the file names of all shards."""
        done, files = file_names(f"{self.work}/{_PROGRESS}"), file_names(self.work)
        return [
            shard
            for shard, name in enumerate(names)
            if f"{shard:05d}.json" not in done or name not in files
        ]

    def remember(self, what: int | str, value: Mapping[str, Any]) -> None:
        """Saves a note about a shard, which marks it as finished, or about anything else."""
        _write_json(self.scratch(_note_name(what)), value)

    def recall(self, what: int | str) -> dict[str, Any] | None:
        """Returns a saved note; None if there is none."""
        return _read_json(self.scratch(_note_name(what)))

    def scratch(self, name: str) -> str:
        """Returns the location of a file that is removed when the directory is complete."""
        return f"{self.work}/{_PROGRESS}/{name}"

    def _read(self, directory: str, name: str, plan: Plan) -> dict[str, Any] | None:
        """Returns a plan or summary after comparing it with the plan; None if it is missing."""
        found = _read_json(f"{directory}/{name}")
        if found is not None:
            remedy = "remove it or choose another --output"
            check_format(directory, self.kind, found, plan["schema_version"], remedy)
            old, new = _flat({key: found.get(key) for key in plan}), _flat(plan)
            differences = [
                _OTHERS.get(name) or f"{name} was {old.get(name)}, now it is {new.get(name)}"
                for name in {**old, **new}
                if old.get(name) != new.get(name)
            ]
            if differences:
                raise UserError(
                    f"{directory} was made with other inputs or settings: "
                    f"{'; '.join(differences)}; choose another --output (of run_pipeline: "
                    "--run_dir) or remove it"
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
            raise UserError(
                f"--output={self.output} cannot be created: {error.strerror}"
            ) from error
        with disk_errors_as_user_errors(path), only_writer(path):
            yield

    def _make(self, plan: Plan, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        # A process killed just before the rename leaves it complete.
        if self._read(self.work, self.summary, plan) is None:
            self._begin(plan)
            result = work()
            if not is_remote(self.work):
                sync_tree(Path(self.work))
            _write_json(f"{self.work}/{self.summary}", {**plan, **result})
        return self._publish()

    def _begin(self, plan: Plan) -> None:
        """Records the plan in an empty directory, or finds it recorded."""
        self._remove_temporaries()
        if not self.is_begun(plan):
            if not is_remote(self.work) and os.path.isdir(self.work) and os.listdir(self.work):
                raise UserError(f"{self.work} exists and was not made as a {self.kind}; remove it")
            _write_json(f"{self.work}/{_PLAN_FILE}", plan)

    def _remove_temporaries(self) -> None:
        """Removes the files of processes that were killed while writing."""
        for directory in (self.work, f"{self.work}/{_PROGRESS}"):
            for name in file_names(directory):
                if name.startswith("."):
                    system, path = locate(f"{directory}/{name}")
                    system.delete_file(path)

    def _publish(self) -> dict[str, Any]:
        """Removes plan and progress, renames the directory, and returns the summary."""
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
    """Returns a plan with the values of its nested mappings moved to the top level."""
    parts = [value if isinstance(value, Mapping) else {key: value} for key, value in plan.items()]
    return {key: value for part in parts for key, value in part.items()}


def _read_json(location: str) -> dict[str, Any] | None:
    """Returns the value in a file; None if it does not exist."""
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
