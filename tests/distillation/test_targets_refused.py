"""Teachers' embeddings that cannot be used as targets."""

import dataclasses

import numpy as np
import pytest
from tiny_teachers import MODEL, VERTICALS, targets_of, write_model

from apparel_embed.common.errors import UserError
from apparel_embed.distillation.targets import (
    Teacher,
)
from apparel_embed.models.embedding import (
    build_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.execution import reset_and_seed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("broken", "name"), [("bags", "bags"), ("reference", "the reference")])
def test_embeddings_that_are_not_numbers_are_refused(
    tiny_prepared, teachers, tmp_path, broken, name
):
    reset_and_seed(0)
    model = build_embedding_model(MODEL)
    kernel = model.get_layer("projection").kernel
    kernel.assign(np.nan * kernel)
    save_embedding_model(tmp_path / "broken", model, MODEL)
    places = {name: teachers / name for name in ("bags", "reference")}
    places[broken] = tmp_path / "broken"

    # Embeddings of split val are also checked.
    with pytest.raises(UserError, match=rf"^{name}: 24 of 24 embeddings are not finite"):
        targets_of(tiny_prepared, [Teacher("bags", ("bags",), places["bags"])], places["reference"])


@pytest.mark.parametrize("as_reference", [True, False])
def test_embeddings_with_different_dimensions_are_refused(
    tiny_prepared, teachers, tmp_path, as_reference
):
    write_model(tmp_path / "long", 0, dataclasses.replace(MODEL, embedding_dim=16))
    some = [Teacher("bags", ("bags",), teachers / "bags")]
    other = None
    if as_reference:
        other = tmp_path / "long"
        message = "the reference: its embeddings have 16 dimensions"
    else:
        some.append(Teacher("dresses", ("dresses",), tmp_path / "long"))
        message = "dresses: its embeddings have 16 dimensions"

    with pytest.raises(UserError, match=f"^{message}; expected 8, as for the student"):
        targets_of(tiny_prepared, some, other)


def test_teachers_of_one_vertical_with_different_dimensions_are_refused(
    tiny_prepared, teachers, tmp_path
):
    write_model(tmp_path / "long", 0, dataclasses.replace(MODEL, embedding_dim=16))
    some = [
        Teacher("both", VERTICALS, teachers / "bags"),
        Teacher("bags", ("bags",), tmp_path / "long"),
    ]
    with pytest.raises(UserError, match="bags: its embeddings have 16 dimensions; expected 8"):
        targets_of(tiny_prepared, some)
