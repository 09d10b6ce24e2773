import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.pairs import parse_pairs


def pairs(*entries, **options):
    return parse_pairs("tags", entries, allowed="each is a:b", what="tag", **options)


def test_colons_belong_to_the_value_or_to_the_name():
    assert pairs(" a : {b}:{c} ", "d:") == {"a": "{b}:{c}", "d": ""}
    assert pairs("a:b:c", "d:", at_last_colon=True) == {"a:b": "c", "d": ""}
    assert pairs() == {}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["a"], "^--tags: 'a' is not allowed; each is a:b$"),
        ([" :b"], "^--tags: ' :b' is not allowed"),
        (["a:b", "a:c"], "^--tags: 'a' is there twice; name each tag once$"),
    ],
)
def test_wrong_pairs_are_named(entries, said):
    with pytest.raises(UserError, match=said):
        pairs(*entries)
