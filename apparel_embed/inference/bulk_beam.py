"""Bulk embedding as an Apache Beam pipeline: shards on many machines, by the code for one.

Beam is imported here only, and when it is asked for: everything else runs without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.inference.bulk import file_names
from apparel_embed.inference.bulk_shard import BulkConfig, Embed, embed_shard, shard_name
from apparel_embed.inference.bulk_sources import Source, open_source

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
    beam = _import_beam()
    work = _Work(config, shards, load, beam_config.threads)
    runner, options = _runner(beam_config), _options(beam_config)
    try:
        with watched(config, todo, shards), beam.Pipeline(runner, options) as pipeline:
            _ = (
                pipeline
                | "missing shards" >> beam.Create(list(todo))
                # Otherwise all shards might be fused into one piece of work.
                | "share out" >> beam.Reshuffle()
                | "embed" >> beam.ParDo(_make_do_fn(work))
            )
    except Exception as error:
        told = _user_error_in(error)
        if told:
            raise UserError(told) from error
        raise


@contextlib.contextmanager
def watched(config: BulkConfig, todo: Sequence[int], shards: int) -> Iterator[None]:
    """Shows how many shards are finished, while others work: only their files tell.

    Args:
      config: what is done.
      todo: numbers of the shards.
      shards: how many there are in all.
    """
    ended = threading.Event()
    names = {shard_name(shard, shards) for shard in todo}
    with progress_bar(total=len(todo), what="embed", unit="shards") as bar:

        def look() -> None:
            while not ended.wait(_SECONDS_BETWEEN_LOOKS):
                with contextlib.suppress(OSError):
                    bar.update(len(names & file_names(config.work)) - bar.n)

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


@dataclasses.dataclass(frozen=True)
class _Work:
    """What each worker is told."""

    config: BulkConfig
    shards: int
    load: Callable[[], Embed]
    threads: int


class _Loaded:
    """What a worker process needs once."""

    def __init__(self, work: _Work) -> None:
        self.embed = work.load()
        self.source: Source = open_source(work.config.source)


def _make_do_fn(work: _Work) -> beam.DoFn:
    """Returns the step that embeds a shard.

    A function, so that there is no base class to import Beam for unless it is used.
    """
    import apache_beam as beam
    from apache_beam.utils.shared import Shared

    class EmbedShard(beam.DoFn):
        def __init__(self) -> None:
            self._shared = Shared()
            self._counts = {
                name: beam.metrics.Metrics.counter("embed", name)
                for name in ("embedded", "rejected")
            }

        def setup(self) -> None:
            # Threads of one worker share the model.
            self._loaded = self._shared.acquire(lambda: _Loaded(work))

        # Without annotations, of which Beam would make type hints, and cannot while they are texts.
        def process(self, shard):
            source, output = self._loaded.source, work.config.work
            stream = source.pictures(output, [shard], work.threads, threads=True)
            with contextlib.closing(stream) as pictures:
                counts = embed_shard(
                    work.config, source, shard, work.shards, pictures, self._loaded.embed
                )
            for name, count in counts.items():
                self._counts[name].inc(count)
            yield {"shard": shard, **counts}

    return EmbedShard()


def _import_beam() -> Any:
    try:
        import apache_beam
    except ImportError as error:
        raise UserError(
            "Apache Beam is not installed: pip install -c requirements.lock apache-beam, or embed "
            "with --runner=local"
        ) from error
    return apache_beam


def _runner(config: BeamConfig) -> Any:
    if config.runner != DIRECT_RUNNER:
        return config.runner
    # Newer releases of Beam have a DirectRunner hand its work to a program that they download.
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return FnApiRunner()


def _options(config: BeamConfig) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions(list(config.options))


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
