"""Every example in a docstring runs, in a directory with the files that it uses."""

import doctest
import importlib
import shutil
from pathlib import Path

import pytest
from prediction_server import Behaviour, grpc_server
from serving_models import drawn, encoded, tiny_model

import apparel_embed
from apparel_embed.serving.saved_model import export_saved_model

PACKAGE = Path(apparel_embed.__file__).parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Address of TensorFlow Serving in examples.
ADDRESS = "localhost:8500"


def modules_with_examples():
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text("utf-8"):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = list(modules_with_examples())


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    directory = tmp_path_factory.mktemp("example") / "1"
    export_saved_model(tiny_model(), directory)
    with grpc_server(Behaviour(directory)) as address:
        yield directory, address


@pytest.fixture
def place(tiny_prepared, address, tmp_path, monkeypatch):
    """Sets up the directory that examples run in; returns the server's address."""
    shutil.copytree(tiny_prepared.directory.parent, tmp_path / "data")
    shutil.copytree(address[0], tmp_path / "runs/mine/saved_model/1")
    (tmp_path / "dress.webp").write_bytes(encoded(drawn(), "WEBP"))
    monkeypatch.chdir(tmp_path)
    return address[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, place):
    module = importlib.import_module(name)
    output = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        for example in test.examples:
            example.source = example.source.replace(ADDRESS, place)
        runner.run(test, out=output.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(output)


def test_every_public_name_has_an_example():
    without = [
        name
        for name in apparel_embed.__all__
        if ">>> " not in (getattr(apparel_embed, name).__doc__ or "")
    ]
    assert without == []


@pytest.mark.parametrize("name", ["Args:", "Raises:"])
def test_public_functions_document_arguments_errors_and_results(name):
    for public in apparel_embed.__all__:
        value = getattr(apparel_embed, public)
        if not isinstance(value, type):
            assert name in value.__doc__, public
            assert "Returns:" in value.__doc__ or value is export_saved_model
