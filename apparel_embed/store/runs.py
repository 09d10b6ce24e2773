"""The run directory: stages that are skipped when done and go on when interrupted.

A stage lives in `<run>/<stage>/`. While it is at work the directory is called
`<run>/<stage>.partial/`; it is renamed when whole. `stage.json` holds what made it: flags and
fingerprints of its inputs, which together are its own fingerprint. A process may be killed between
any two lines of this file: what it leaves is then finished, gone on with or begun anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from apparel_embed.common.cluster import is_chief, wait_for
from apparel_embed.common.errors import UserError
from apparel_embed.common.files import (
    disk_errors_as_user_errors,
    fingerprint_json,
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
    differences_of,
    find_stage,
    find_twin,
    finished_record,
    open_stage,
    partial_of,
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
      UserError: if another process holds the run or makes a stage of it; it is told which.
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


StageWork = Callable[[Path], Mapping[str, Any]]
"""The work of a stage, see `run_stage`."""


def run_stage(
    directory: Path,
    *,
    flags: Mapping[str, Any],
    inputs: Mapping[str, str],
    work: StageWork,
    renewed: bool | Collection[str] = False,
    twins: Sequence[Path] = (),
    scratch: Sequence[str] = (),
    together: bool = False,
) -> Stage:
    """Runs a stage, or finds it finished, by its own or another name.

    Of several processes that train together the chief runs it. The others wait until it is
    finished, or do the work too, in a directory aside that goes.

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
      scratch: names of directories in the stage's that only an interrupted call has use for.
      together: whether all processes have to do the work, as trainings.

    Returns:
      The finished stage.

    Raises:
      UserError: if the stage, finished or begun, was made with other flags or inputs and is not
        to be renewed: nothing else is overwritten. If another process is making it, or has the
        run for itself. If the disk is full, read-only or fails.
    """
    made_of = {"flags": dict(flags), "inputs": dict(inputs)}
    # Without a lock first: a finished stage can be read where nothing can be written.
    finished = _find_finished(directory, made_of, renewed)
    if finished:
        logging.info("%s: finished before, skipped", directory)
        return finished
    if not is_chief():
        return _follow(directory, made_of, work if together else None, renewed, twins)
    with disk_errors_as_user_errors(directory), only_writer(directory):
        refuse_if_held(directory.parent / _RUN_LOCK, directory.parent)
        # Another process may have finished it in between.
        finished = _find_finished(directory, made_of, renewed)
        if not finished and not directory.exists() and not partial_of(directory).exists():
            finished = _copy_twin(directory, made_of, twins)
        return finished or _make(directory, made_of, work, renewed, scratch)


@dataclasses.dataclass(frozen=True)
class StageAccess:
    """How stages are made and found: for real, or in a plan that makes none.

    Attributes:
      make: as `run_stage`.
      find: as `find_stage`.
      tell: says what comes next; arguments are those of `logging.info`.
    """

    make: Callable[..., Stage] = run_stage
    find: Callable[[Path], Stage | None] = find_stage
    tell: Callable[..., None] = logging.info


REAL = StageAccess()


def look_up_stage(
    directory: Path,
    *,
    flags: Mapping[str, Any],
    inputs: Mapping[str, str],
    renewed: bool | Collection[str] = False,
    twins: Sequence[Path] = (),
) -> tuple[str, Stage]:
    """Tells what `run_stage` would do; its arguments and errors are that one's.

    Returns:
      What would be done, in words, and the finished stage, or one without a result that has the
      fingerprint that it would get (`skipped` is False then).
    """
    made_of = {"flags": dict(flags), "inputs": dict(inputs)}
    finished = _find_finished(directory, made_of, renewed)
    if finished:
        return "finished", finished
    partial, state = partial_of(directory), "to do"
    # A file with a dot first is what a process left that was killed as it began.
    if partial.is_dir() and any(not path.name.startswith(".") for path in partial.iterdir()):
        differences = differences_of(partial, made_of)
        _refuse_unless(renewed, partial, differences)
        state = "to be begun anew" if differences else "to be gone on with"
    elif directory.exists():
        state = "to be made anew"
    elif find_twin(made_of, twins):
        state = "to be copied"
    return state, planned_stage(directory, flags, inputs)


def planned_stage(directory: Path, flags: Mapping[str, Any], inputs: Mapping[str, str]) -> Stage:
    """Returns a stage as it would be made: without a result, with the fingerprint it would have."""
    made_of = {"flags": dict(flags), "inputs": dict(inputs)}
    fingerprint = fingerprint_json(made_of)
    return Stage(directory, fingerprint, flags, {}, 0.0, skipped=False, inputs=inputs)


def _make(
    directory: Path,
    made_of: Mapping[str, Any],
    work: StageWork,
    renewed: bool | Collection[str],
    scratch: Sequence[str],
) -> Stage:
    """Does a stage's work, or what an interrupted call has left of it."""
    partial, old = partial_of(directory), directory.with_name(f".{directory.name}.old")
    if directory.exists():
        differences = differences_of(directory, made_of).values()
        logging.info("%s: %s; made anew", directory, "; ".join(differences))
    _begin(partial, old, made_of, renewed)
    # It is whole but for its name if the process was killed just then.
    if "result" not in read_record(partial):
        start = time.monotonic()
        result = work(partial)
        seconds = round(time.monotonic() - start, 1)
        sync_tree(partial)
        write_json(partial / STAGE_FILE, finished_record(directory.name, made_of, result, seconds))
    for name in scratch:
        remove_tree(partial / name)
    remove_temporaries(partial)
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        # The old one stays until the new one is whole, and goes at once and not file by file.
        directory.rename(old)
    partial.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
    return dataclasses.replace(open_stage(directory), skipped=False)


def _follow(
    directory: Path,
    made_of: Mapping[str, Any],
    work: StageWork | None,
    renewed: bool | Collection[str],
    twins: Sequence[Path],
) -> Stage:
    """Does the chief's work with it, if there is some, and returns the stage once it is finished.

    Whether there is some is seen from what was there before: the chief finishes no work that all
    have to do without this process.
    """
    partial = partial_of(directory)
    if work is not None and _is_to_be_done(partial, made_of, twins):
        # Looked at once more: the chief may just have given it its name.
        finished = _find_finished(directory, made_of, True)
        if finished:
            return finished
        with tempfile.TemporaryDirectory() as aside:
            # All have to go on from the same checkpoint.
            if partial.is_dir():
                shutil.copytree(partial, aside, dirs_exist_ok=True)
            work(Path(aside))
    return wait_for(lambda: _find_finished(directory, made_of, True), str(directory))


def _is_to_be_done(partial: Path, made_of: Mapping[str, Any], twins: Sequence[Path]) -> bool:
    """Returns whether a chief does a stage's work, and does not copy or only rename it."""
    if not (partial / STAGE_FILE).is_file():
        return find_twin(made_of, twins) is None
    return "result" not in read_record(partial)


def _find_finished(
    directory: Path, made_of: Mapping[str, Any], renewed: bool | Collection[str]
) -> Stage | None:
    """Returns a stage if it is finished and made of the same; None if it is to be made.

    Raises:
      UserError: if it is made of something else, and not to be renewed.
    """
    if not directory.exists():
        return None
    differences = differences_of(directory, made_of)
    if not differences:
        return open_stage(directory)
    _refuse_unless(renewed, directory, differences)
    return None


def _copy_twin(directory: Path, made_of: Mapping[str, Any], twins: Sequence[Path]) -> Stage | None:
    """Copies the first finished stage that is made of the same; None if there is none."""
    twin = find_twin(made_of, twins)
    if twin is None:
        return None
    logging.info("%s: the same as %s, copied", directory, twin)
    return _copy(open_stage(twin), directory)


def _copy(twin: Stage, directory: Path) -> Stage:
    """Copies a finished stage aside, and gives the copy its name when it is whole."""
    aside = directory.with_name(f".{directory.name}.copy")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shutil.copytree(twin.directory, aside)
        record = read_json(aside / STAGE_FILE)
        write_json(aside / STAGE_FILE, {**record, "stage": directory.name})
        sync_tree(aside)
        aside.rename(directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be copied from {twin.directory} ({error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return open_stage(directory)


def _begin(
    partial: Path, old: Path, made_of: Mapping[str, Any], renewed: bool | Collection[str]
) -> None:
    """Makes the directory of a stage at work, or finds the one to go on with."""
    remove_temporaries(partial)
    # An empty one was left by a process that was killed as it began.
    if partial.is_file() or (partial.is_dir() and any(partial.iterdir())):
        differences = differences_of(partial, made_of)
        if not differences:
            logging.info("%s: going on", partial)
            return
        _refuse_unless(renewed, partial, differences)
        shutil.rmtree(old, ignore_errors=True)
        partial.rename(old)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / STAGE_FILE, made_of)


def _refuse_unless(
    renewed: bool | Collection[str], directory: Path, differences: Mapping[str, str]
) -> None:
    refused = {
        name: difference
        for name, difference in differences.items()
        if not (renewed if isinstance(renewed, bool) else name.partition(".")[0] in renewed)
    }
    if refused:
        raise StageDiffers(directory, refused)


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
    there = [path.parent for path in sorted(run_dir.glob(f"*/{STAGE_FILE}"))]
    records = {path: read_record(path) for path in there}
    found = [path for path in records if path.name.removesuffix(".partial") in names]
    unknown = sorted({*names} - {path.name.removesuffix(".partial") for path in found})
    if unknown:
        known = ", ".join(sorted(path.name for path in records)) or "none"
        raise UserError(f"--redo_from={unknown[0]}: {run_dir} has no such stage; it has {known}")
    while True:
        made = {records[path].get("fingerprint") for path in found}
        more = [
            path
            for path, record in records.items()
            if path not in found and made.intersection(record["inputs"].values())
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
