import pytest
import tensorflow as tf
from serving_models import colour_detector, tiny_head, tiny_model

from apparel_embed.serving.saved_model import ExportConfig, export_saved_model


@pytest.fixture(scope="session")
def model():
    return tiny_model()


@pytest.fixture(scope="session")
def head(model):
    return tiny_head(model)


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    """A SavedModel without a head, for images of up to a million pixels; read-only."""
    directory = tmp_path_factory.mktemp("served") / "1"
    export_saved_model(model, directory, ExportConfig(max_pixels=1_000_000))
    return directory


@pytest.fixture(scope="session")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


@pytest.fixture(scope="session")
def exported_with_head(model, head, tmp_path_factory):
    directory = tmp_path_factory.mktemp("routed") / "7"
    export_saved_model(model, directory, head=head, model_card="# A card\n")
    return directory


@pytest.fixture(scope="session")
def exported_with_detector(model, tmp_path_factory):
    """A SavedModel with `colour_detector`, for images of up to a million pixels; read-only."""
    directory = tmp_path_factory.mktemp("detecting") / "3"
    config = ExportConfig(max_pixels=1_000_000, warm_up=False)
    export_saved_model(model, directory, config, detector=colour_detector())
    return directory


@pytest.fixture(scope="session")
def street_signatures(exported_with_detector):
    return tf.saved_model.load(str(exported_with_detector)).signatures


@pytest.fixture(scope="session")
def detect(street_signatures):
    def detect(images):
        found = street_signatures["detect_and_embed"](image_bytes=tf.constant(images, tf.string))
        return {name: values.numpy() for name, values in found.items()}

    return detect
