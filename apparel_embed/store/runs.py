"""The run directory: stages that are skipped when done and resumed when interrupted.

A stage lives in `<run>/<stage>/`. While it is at work the directory is called
`<run>/<stage>.partial/`; it is renamed when whole. `stage.json` holds what made it: flags and
fingerprints of its inputs, which together are its own fingerprint. A process may be killed between
any two lines of this file: what it leaves is then finished, resumed or started again.
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

# Beside those of its stages, which are named after them.
_RUN_LOCK = ".run.lock"


class StageDiffers(UserError):
    """A stage is there, finished or begun, but was made with other flags or inputs.

    Attributes:
      directory: of the stage.
      differences: by name of the flag or input, a sentence.
    """

    def __init__(self, directory: Path, differences: Mapping[str, str]) -> None:
        self.directory = directory
        self.differences = differences
        super().__init__(f"{directory}: {'; '.join(differences.values())}; {REMEDY}")


@contextlib.contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Holds a run for a process that makes many of its stages, such as the pipeline.

    Who makes a single stage need not: `run_stage` is refused while another process holds the run,
    or makes the same stage. Of several processes that train together the chief holds it for all.

    Raises:
      UserError: if another process holds the run or makes a stage of it; the message names it.
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
            # Made for the lock: nothing else may be there of a run that was refused its flags.
            with contextlib.suppress(OSError):
                run_dir.rmdir()


def run_stage(spec: StageSpec) -> Stage:
    """Runs a stage, or finds it finished, by its own or another name.

    Of several processes that train together the chief runs it. The others wait until it is
    finished, or do the work too, in a temporary directory.

    Raises:
      UserError: if the stage, finished or begun, was made with other flags or inputs and may not
        be overwritten. If another process is making it, or has the run for itself. If the disk is
        full, read-only or fails.
    """
    directory = spec.directory
    # Without a lock first: a finished stage can be read where nothing can be written.
    finished = _find_finished(spec)
    if finished:
        logging.info("%s: finished before, skipped", directory)
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
    """How stages are made and found: for real, or in a plan that makes none.

    Attributes:
      make: as `run_stage`.
      find: as `find_stage`.
      log: says what comes next; arguments are those of `logging.info`.
      doubt: called with a sentence that says why the rest depends on a stage that is not made.
    """

    make: Callable[[StageSpec], Stage] = run_stage
    find: Callable[[Path], Stage | None] = find_stage
    log: Callable[..., None] = logging.info
    doubt: Callable[[str], None] = logging.info


REAL = StageAccess()


def look_up_stage(spec: StageSpec) -> tuple[str, Stage]:
    """Tells what `run_stage` would do; its errors are that one's.

    Returns:
      What would be done, in words, and the finished stage, or the planned one.
    """
    finished = _find_finished(spec)
    if finished:
        return "finished", finished
    state = "to do"
    # A file with a dot first is what a process left that was killed as it began.
    if spec.partial.is_dir() and any(path.name[0] != "." for path in spec.partial.iterdir()):
        differences = _allowed_differences(spec, spec.partial)
        state = "to be started again" if differences else "to be resumed"
    elif spec.directory.exists():
        state = "to be overwritten"
    elif spec.reusable():
        state = "to be copied"
    return state, spec.planned()


def _make(spec: StageSpec) -> Stage:
    """Does a stage's work, or what an interrupted call has left of it."""
    directory, partial = spec.directory, spec.partial
    old = directory.with_name(f".{directory.name}.old")
    if directory.exists():
        differences = spec.differences(directory).values()
        logging.info("%s: %s; overwritten", directory, "; ".join(differences))
    _begin(spec, old)
    # It is whole but for its name if the process was killed just then.
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
        # The old one stays until the new one is whole, and goes at once and not file by file.
        directory.rename(old)
    partial.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
    return dataclasses.replace(open_stage(directory), skipped=False)


def _begin(spec: StageSpec, old: Path) -> None:
    """Makes the directory of a stage at work, or finds the one to resume."""
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
    """Does the chief's work with it, if there is some, and returns the stage once it is finished.

    Whether there is some is seen from what was there before: the chief finishes no work that all
    have to do without this process.
    """
    if spec.on_all_workers and _is_to_be_done(spec):
        # Looked at once more: the chief may just have given it its name.
        finished = _find_finished(spec)
        if finished:
            return finished
        with tempfile.TemporaryDirectory() as aside:
            # All have to resume from the same checkpoint.
            if spec.partial.is_dir():
                shutil.copytree(spec.partial, aside, dirs_exist_ok=True)
            spec.work(Path(aside))
    return wait_for(lambda: _find_finished(spec), str(spec.directory))


def _is_to_be_done(spec: StageSpec) -> bool:
    """Returns whether a chief does a stage's work, and does not copy or only rename it."""
    if not (spec.partial / STAGE_FILE).is_file():
        return spec.reusable() is None
    return "result" not in read_record(spec.partial)


def _find_finished(spec: StageSpec) -> Stage | None:
    """Returns a stage if it is finished and made of the same; None if it is to be made.

    Raises:
      UserError: if it is made of something else, and may not be overwritten.
    """
    if not spec.directory.exists() or _allowed_differences(spec, spec.directory):
        return None
    return open_stage(spec.directory)


def _allowed_differences(spec: StageSpec, directory: Path) -> dict[str, str]:
    """Returns how the stage in a directory differs; raises `StageDiffers` unless it may."""
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
    """Copies a finished stage aside, and gives the copy its name when it is whole."""
    logging.info("%s: the same as %s, copied", directory, source)
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
    """Returns the directories of some stages, then those of all that were made from them.

    Versions of the SavedModel are not among them: other flags make the next one.

    Args:
      run_dir: the run's directory.
      names: of stages, finished or begun.

    Raises:
      UserError: if there is no stage of a name.
    """
    if not names:
        return []
    records = {path.parent: read_record(path.parent) for path in run_dir.glob(f"*/{STAGE_FILE}")}
    there = sorted(records)
    unknown = sorted({*names} - {path.name.removesuffix(".partial") for path in there})
    if unknown:
        known = ", ".join(path.name for path in there) or "none"
        raise UserError(f"--redo_from={unknown[0]}: {run_dir} has no such stage; it has {known}")
    found = [path for path in there if path.name.removesuffix(".partial") in names]
    while True:
        made = {records[path].get("fingerprint") for path in found}
        more = [
            path
            for path in there
            if path not in found and made.intersection(records[path]["inputs"].values())
        ]
        if not more:
            return found
        found += more


def set_aside(run_dir: Path, directories: Sequence[Path]) -> Path:
    """Moves stages into `<run>/replaced/<number>/`, and returns that directory.

    Args:
      run_dir: the run's directory.
      directories: as `stages_from` returns them. What was made from others goes first, so that a
        call that was killed can be made again.
    """
    replaced = run_dir / "replaced"
    numbers = [int(path.name) for path in replaced.glob("*") if path.name.isdecimal()]
    aside = replaced / str(max(numbers, default=0) + 1)
    aside.mkdir(parents=True)
    for directory in reversed(directories):
        directory.rename(aside / directory.name)
    return aside
