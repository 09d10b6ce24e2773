"""Bulk embedding as an Apache Beam pipeline: shards on many machines, by the code for one.

Beam is imported here only, and when it is asked for: everything else runs without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import file_names
from apparel_embed.common.progress import progress_bar
from apparel_embed.inference.bulk_shard import BulkConfig, Embed, embed_shard, shard_name
from apparel_embed.inference.bulk_sources import open_source

if TYPE_CHECKING:
    import apache_beam as beam

DIRECT_RUNNER = "DirectRunner"
_SECONDS_BETWEEN_LOOKS = 5.0


@dataclasses.dataclass(frozen=True)
class BeamConfig:
    """How Beam runs.

    Attributes:
      runner: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner ...
      options: further options of Beam and the runner, each as `--name=value`.
      threads: that prepare pictures in each worker, 1 or more.
    """

    runner: str = DIRECT_RUNNER
    options: Sequence[str] = ()
    threads: int = 1


def run_on_beam(
    config: BulkConfig,
    todo: Sequence[int],
    shards: int,
    *,
    load: Callable[[], Embed],
    beam_config: BeamConfig,
) -> None:
    """Embeds shards by a Beam pipeline, one shard being one element.

    A worker that dies takes one shard with it, which another does again. All workers must see
    pictures, model and output under the same names.

    Args:
      config: what to do.
      todo: numbers of the shards.
      shards: how many there are in all.
      load: loads the model; called once in each worker process, so it must be possible to pickle.
      beam_config: how Beam runs.

    Raises:
      UserError: Beam is not installed or knows no such runner, or a worker says what is wrong.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    except ImportError as error:
        raise UserError(
            "Apache Beam is not installed: pip install -c requirements.lock apache-beam, or embed "
            "with --runner=local"
        ) from error
    step = _make_do_fn(config, shards, load, beam_config.threads)
    # Newer releases of Beam have a DirectRunner hand its work to a program that they download.
    is_direct = beam_config.runner == DIRECT_RUNNER
    runner = FnApiRunner() if is_direct else beam_config.runner
    options = PipelineOptions(list(beam_config.options))
    try:
        with (
            watched(config, [shard_name(shard, shards) for shard in todo]),
            beam.Pipeline(runner, options) as pipeline,
        ):
            _ = (
                pipeline
                | "missing shards" >> beam.Create(list(todo))
                # Otherwise all shards might be fused into one piece of work.
                | "share out" >> beam.Reshuffle()
                | "embed" >> beam.ParDo(step)
            )
    except Exception as error:
        told = _user_error_in(error)
        if told:
            raise UserError(told) from error
        raise


@contextlib.contextmanager
def watched(config: BulkConfig, names: Sequence[str]) -> Iterator[None]:
    """Shows how many of the shards are finished, while others work: only their files tell."""
    ended, work = threading.Event(), config.directory.work
    with progress_bar(total=len(names), what="embed", unit="shards") as bar:

        def look() -> None:
            while not ended.wait(_SECONDS_BETWEEN_LOOKS):
                with contextlib.suppress(OSError):
                    bar.update(len({*names} & file_names(work)) - bar.n)

        # Where nobody watches, a store is not to be asked again and again.
        thread = threading.Thread(target=look, daemon=True) if not bar.disable else None
        if thread:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if thread:
                thread.join()


def _make_do_fn(
    config: BulkConfig, shards: int, load: Callable[[], Embed], threads: int
) -> beam.DoFn:
    """Returns the step that embeds a shard.

    A function, so that there is no base class to import Beam for unless it is used.
    """
    import apache_beam as beam
    from apache_beam.utils.shared import Shared

    class Loaded:
        def __init__(self) -> None:
            self.embed, self.source = load(), open_source(config.source)

    class EmbedShard(beam.DoFn):
        def __init__(self) -> None:
            self._shared = Shared()
            self._counts = {
                name: beam.metrics.Metrics.counter("embed", name)
                for name in ("embedded", "rejected")
            }

        def setup(self) -> None:
            # Threads of one worker share the model.
            self._loaded = self._shared.acquire(Loaded)

        # Without annotations, of which Beam would make type hints, and cannot while they are texts.
        def process(self, shard):
            embed, source = self._loaded.embed, self._loaded.source
            stream = source.pictures(config.directory, [shard], threads, threads=True)
            with contextlib.closing(stream) as pictures:
                counts = embed_shard(config, source, shard, shards, pictures, embed)
            for name, count in counts.items():
                self._counts[name].inc(count)
            yield {"shard": shard, **counts}

    return EmbedShard()


def _user_error_in(error: BaseException) -> str:
    """Returns what a worker's UserError says, however Beam has wrapped it; "" if there is none."""
    if isinstance(error, UserError):
        return str(error)
    for line in str(error).splitlines():
        _, found, told = line.partition(f"{UserError.__name__}: ")
        if found:
            return told
    if isinstance(error, ValueError) and "runner" in str(error):
        return f"--runner: {' '.join(str(error).split())}"
    return ""
