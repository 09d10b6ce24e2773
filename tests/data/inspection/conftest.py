import pytest
from inspected import write_hostile

from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.inspect import inspect


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """The inspection of a dataset in which much is wrong, see `write_hostile`."""
    return inspect(InspectConfig(write_hostile(tmp_path_factory.mktemp("hostile"))), processes=2)
