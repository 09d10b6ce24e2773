"""A trivial stage."""

from apparel_embed.store.record import StageSpec
from apparel_embed.store.runs import run_stage


def make(directory, work=lambda directory: {"answer": 42}, flags=None, inputs=None, **more):
    """Makes the stage, or finds it finished."""
    return run_stage(
        StageSpec(
            directory,
            flags=flags or {"steps": 1},
            inputs=inputs or {"data": "abc"},
            work=work,
            **more,
        )
    )
