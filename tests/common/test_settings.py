from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import (
    LARGEST_SEED,
    check_settings,
    same_as,
    seed_setting,
    setting,
    setting_of,
)


@dataclasses.dataclass(frozen=True)
class Config:
    name: str
    size: int = setting(3, "size in pixels", 1, 9)
    share: float = setting(0.5, "share of the rest", 0.0)
    limit: int | None = setting(None, "most of them", 1)
    rows: tuple[int, ...] = setting((1, 2), "rows", 1, 5)
    seed: int = seed_setting("what is drawn")
    kind: str = setting("a", "kind", choices=("a", "b"))

    def __post_init__(self):
        check_settings(self)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, r"^size is 0; expected a whole number, 1 to 9$"),
        ({"size": 10}, "size is 10; expected"),
        ({"size": 2.5}, "size is 2.5; expected a whole number"),
        ({"size": True}, "size is True"),
        ({"share": -0.1}, r"^share is -0.1; expected 0 or more$"),
        ({"share": float("nan")}, "share is nan"),
        ({"limit": 0}, "limit is 0; expected a whole number, 1 or more"),
        ({"seed": 2**31}, r"seed is 2147483648; expected a whole number, 0 to 2\^31 - 1"),
    ],
)
def test_a_number_out_of_its_range_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Config("x", **wrong)


def test_numbers_in_their_range_and_none_are_allowed():
    config = Config("x", size=np.int64(9), share=2, limit=None, seed=LARGEST_SEED)
    assert (config.size, config.share, config.limit) == (9, 2, None)


def test_a_field_copied_from_another_dataclass_has_its_default_and_range():
    @dataclasses.dataclass(frozen=True)
    class Other:
        size: int = same_as(Config, "size", "; as elsewhere")

    copied = setting_of(dataclasses.fields(Other)[0])
    assert Other().size == 3
    assert (copied.what, copied.low, copied.high) == ("size in pixels; as elsewhere", 1, 9)
    assert setting_of(dataclasses.fields(Config)[0]) is None
