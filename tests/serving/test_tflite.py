import numpy as np
import pytest
from serving_models import DIM, SIZE, drawn, encoded

from apparel_embed.common.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.serving.tflite import TFLITE_KINDS, TFLiteModel, to_tflite

pytestmark = pytest.mark.slow

IMAGES = np.stack([decode_to_square(encoded(drawn(seed=seed)), SIZE).numpy() for seed in range(12)])


@pytest.mark.parametrize("kind", TFLITE_KINDS)
def test_a_smaller_model_gives_almost_the_same_embeddings(model, kind):
    content = to_tflite(model, kind, IMAGES)
    whole = Embedder(model)([IMAGES])
    found = TFLiteModel(content)([IMAGES[:5], IMAGES[5:]])

    weights = sum(weight.nbytes for weight in model.get_weights())
    assert len(content) < {"float16": 0.6, "int8": 0.4}[kind] * weights
    assert found.shape == (12, DIM)
    assert ((found * whole).sum(axis=1) > {"float16": 0.9999, "int8": 0.98}[kind]).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=0.02)


def test_errors_of_the_conversion_give_the_reason(model):
    with pytest.raises(UserError, match="expected one of float16, int8"):
        to_tflite(model, "int4", IMAGES)
    with pytest.raises(UserError, match="no representative image"):
        to_tflite(model, "int8", IMAGES[:0])
