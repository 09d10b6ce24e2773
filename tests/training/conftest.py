import pytest
from tiny_teachers import write_model


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("teachers")
    for seed, name in enumerate(("bags", "dresses", "reference")):
        write_model(directory / name, seed)
    return directory
