"""The run directory: stages are skipped when finished and resumed when interrupted.

A stage is stored in `<run>/<stage>/`. While it is being made the directory is called
`<run>/<stage>.partial/`; it is renamed when complete. `stage.json` records its flags and the
fingerprints of its inputs, which give its own fingerprint. A process may be killed between any two
lines of this file: the next call then finds the stage finished, resumes it, or starts it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from absl import logging

from apparel_embed.common.cluster import is_chief, wait_for
from apparel_embed.common.errors import UserError
from apparel_embed.common.files import (
    disk_errors_as_user_errors,
    read_json,
    remove_temporaries,
    remove_tree,
    sync_tree,
    write_json,
)
from apparel_embed.common.locks import only_writer, refuse_if_held
from apparel_embed.store.record import (
    REMEDY,
    STAGE_FILE,
    Stage,
    StageSpec,
    find_stage,
    open_stage,
    read_record,
)

# Next to the locks of its stages, which are named after them.
_RUN_LOCK = ".run.lock"


class StageDiffers(UserError):
    """A stage exists, finished or not, but was made with other flags or inputs.

    Attributes:
      directory: directory of the stage.
      differences: a sentence for each flag or input that differs, by its name.
    """

    def __init__(self, directory: Path, differences: Mapping[str, str]) -> None:
        self.directory = directory
        self.differences = differences
        super().__init__(f"{directory}: {'; '.join(differences.values())}; {REMEDY}")


@contextlib.contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Locks a run for a process that makes many of its stages, such as the pipeline.

    A single stage does not need this: `run_stage` is refused while another process holds the run
    or makes the same stage. If several processes train together, the chief holds it for all.

    Raises:
      UserError: if another process holds the run or is making one of its stages; the message
        names that process.
    """
    if not is_chief():
        yield
        return
    is_new = not run_dir.exists()
    try:
        with disk_errors_as_user_errors(run_dir), only_writer(run_dir, run_dir / _RUN_LOCK):
            for path in sorted(run_dir.glob(".*.lock")):
                refuse_if_held(path, run_dir / path.name[1 : -len(".lock")])
            yield
    finally:
        if is_new:
            # Created for the lock: a run whose flags are refused must leave no directory.
            with contextlib.suppress(OSError):
                run_dir.rmdir()


def run_stage(spec: StageSpec) -> Stage:
    """Runs a stage, or finds it finished, under its own or another name.

    If several processes train together, the chief runs it. The others wait until it is finished,
    or do the work too, in a temporary directory.

    Raises:
      UserError: if the stage, finished or not, was made with other flags or inputs and may not be
        overwritten; if another process is making it or holds the run; or if the disk is full,
        read-only or failing.
    """
    directory = spec.directory
    # First without a lock: a finished stage can be read on a read-only disk.
    finished = _find_finished(spec)
    if finished:
        logging.info("%s: already finished, skipped", directory)
        return finished
    if not is_chief():
        return _follow(dataclasses.replace(spec, overwrite=True))
    with disk_errors_as_user_errors(directory), only_writer(directory):
        refuse_if_held(directory.parent / _RUN_LOCK, directory.parent)
        # Another process may have finished it in between.
        finished = _find_finished(spec)
        if finished:
            return finished
        is_begun = directory.exists() or spec.partial.exists()
        source = None if is_begun else spec.reusable()
        return _copy(source, directory) if source else _make(spec)


@dataclasses.dataclass(frozen=True)
class StageAccess:
    """Functions that make and find stages, for real or in a plan that makes none.

    Attributes:
      make: as `run_stage`.
      find: as `find_stage`.
      log: logs the next steps; arguments are those of `logging.info`.
      doubt: called with a sentence that says why the rest depends on a stage not made yet.
    """

    make: Callable[[StageSpec], Stage] = run_stage
    find: Callable[[Path], Stage | None] = find_stage
    log: Callable[..., None] = logging.info
    doubt: Callable[[str], None] = logging.info


REAL = StageAccess()


def look_up_stage(spec: StageSpec) -> tuple[str, Stage]:
    """Looks up what `run_stage` would do, with the same errors.

    Returns:
      What would be done, in words, and the finished or planned stage.
    """
    finished = _find_finished(spec)
    if finished:
        return "finished", finished
    state = "to do"
    # A file with a leading dot was left by a process that was killed as it began.
    if spec.partial.is_dir() and any(path.name[0] != "." for path in spec.partial.iterdir()):
        differences = _allowed_differences(spec, spec.partial)
        state = "to be started again" if differences else "to be resumed"
    elif spec.directory.exists():
        state = "to be overwritten"
    elif spec.reusable():
        state = "to be copied"
    return state, spec.planned()


def _make(spec: StageSpec) -> Stage:
    """Does a stage's work, or the part that an interrupted call left undone."""
    directory, partial = spec.directory, spec.partial
    old = directory.with_name(f".{directory.name}.old")
    if directory.exists():
        differences = spec.differences(directory).values()
        logging.info("%s: %s; overwritten", directory, "; ".join(differences))
    _begin(spec, old)
    # A process killed just before the rename leaves it complete.
    if "result" not in read_record(partial):
        start = time.monotonic()
        result = spec.work(partial)
        seconds = round(time.monotonic() - start, 1)
        sync_tree(partial)
        write_json(partial / STAGE_FILE, spec.record(result, seconds))
    for name in spec.scratch:
        remove_tree(partial / name)
    remove_temporaries(partial)
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        # The old one stays until the new one is complete; a rename removes it in one step.
        directory.rename(old)
    partial.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
    return dataclasses.replace(open_stage(directory), skipped=False)


def _begin(spec: StageSpec, old: Path) -> None:
    """Creates the partial directory of a stage, or finds the one to resume."""
    partial = spec.partial
    remove_temporaries(partial)
    # An empty one was left by a process that was killed as it began.
    if partial.is_file() or (partial.is_dir() and any(partial.iterdir())):
        if not _allowed_differences(spec, partial):
            logging.info("%s: resumed", partial)
            return
        shutil.rmtree(old, ignore_errors=True)
        partial.rename(old)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / STAGE_FILE, spec.begun)


def _follow(spec: StageSpec) -> Stage:
    """Takes part in the chief's work, if needed, and returns the stage once it is finished.

    It is needed if the stage was not finished before: the chief cannot finish work that all
    processes share without this one.
    """
    if spec.on_all_workers and _needs_work(spec):
        # Check again: the chief may just have renamed it.
        finished = _find_finished(spec)
        if finished:
            return finished
        with tempfile.TemporaryDirectory() as aside:
            # All processes must resume from the same checkpoint.
            if spec.partial.is_dir():
                shutil.copytree(spec.partial, aside, dirs_exist_ok=True)
            spec.work(Path(aside))
    return wait_for(lambda: _find_finished(spec), str(spec.directory))


def _needs_work(spec: StageSpec) -> bool:
    """Returns whether the chief must do a stage's work, not only copy or rename it."""
    if not (spec.partial / STAGE_FILE).is_file():
        return spec.reusable() is None
    return "result" not in read_record(spec.partial)


def _find_finished(spec: StageSpec) -> Stage | None:
    """Returns a finished stage with the same flags and inputs; None if it must be made.

    Raises:
      UserError: if it was made with others and may not be overwritten.
    """
    if not spec.directory.exists() or _allowed_differences(spec, spec.directory):
        return None
    return open_stage(spec.directory)


def _allowed_differences(spec: StageSpec, directory: Path) -> dict[str, str]:
    """Returns how the stage in a directory differs; raises `StageDiffers` if it must not."""
    differences, overwrite = spec.differences(directory), spec.overwrite
    refused = {
        name: difference
        for name, difference in differences.items()
        if not (overwrite if isinstance(overwrite, bool) else name.partition(".")[0] in overwrite)
    }
    if refused:
        raise StageDiffers(directory, refused)
    return differences


def _copy(source: Path, directory: Path) -> Stage:
    """Copies a finished stage, renaming the copy when it is complete."""
    logging.info("%s: copied from %s, which is the same", directory, source)
    aside = directory.with_name(f".{directory.name}.copy")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shutil.copytree(source, aside)
        record = read_json(aside / STAGE_FILE)
        write_json(aside / STAGE_FILE, {**record, "stage": directory.name})
        sync_tree(aside)
        aside.rename(directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be copied from {source} ({error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return open_stage(directory)


def stages_from(run_dir: Path, names: Collection[str]) -> list[Path]:
    """Returns the directories of some stages, then those of all stages made from them.

    Versions of the SavedModel are not included: other flags add a new version.

    Args:
      run_dir: the run's directory.
      names: names of stages, finished or not.

    Raises:
      UserError: if a stage does not exist.
    """
    if not names:
        return []
    records = {path.parent: read_record(path.parent) for path in run_dir.glob(f"*/{STAGE_FILE}")}
    existing = sorted(records)
    unknown = sorted({*names} - {path.name.removesuffix(".partial") for path in existing})
    if unknown:
        known = ", ".join(path.name for path in existing) or "none"
        raise UserError(f"--redo_from={unknown[0]}: {run_dir} has no such stage; it has {known}")
    found = [path for path in existing if path.name.removesuffix(".partial") in names]
    while True:
        made = {records[path].get("fingerprint") for path in found}
        more = [
            path
            for path in existing
            if path not in found and made.intersection(records[path]["inputs"].values())
        ]
        if not more:
            return found
        found += more


def set_aside(run_dir: Path, directories: Sequence[Path]) -> Path:
    """Moves stages into `<run>/replaced/<number>/` and returns that directory.

    Args:
      run_dir: the run's directory.
      directories: as returned by `stages_from`. Dependent stages are moved first, so a killed call
        can be repeated.
    """
    replaced = run_dir / "replaced"
    numbers = [int(path.name) for path in replaced.glob("*") if path.name.isdecimal()]
    aside = replaced / str(max(numbers, default=0) + 1)
    aside.mkdir(parents=True)
    for directory in reversed(directories):
        directory.rename(aside / directory.name)
    return aside
