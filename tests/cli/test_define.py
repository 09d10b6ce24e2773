from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from apparel_embed.cli.define import MODEL, RARE, ConfigFlags, define
from apparel_embed.cli.help import own_flags
from apparel_embed.common.settings import LARGEST_SEED, setting

ROOT = Path(__file__).parents[2]


@pytest.fixture
def defined():
    """Removes the flags that a test defines, as flags are global."""
    before = set(flags.FLAGS)
    yield flags.FLAGS
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("default", "low", "high", "kind", "help_text"),
    [
        (3, 1, 9, "int", "size (1 to 9)"),
        (3, 1, None, "int", "size (1 or more)"),
        (0.5, 0.0, 0.9999, "float", "size (0 to 0.9999)"),
        (0.5, 0, 1_000_000, "float", "size (0 to 1000000)"),
        (None, 1, None, "int", "size (1 or more)"),
        (None, 0.1, None, "float", "size (0.1 or more)"),
    ],
)
def test_help_contains_the_range_and_values_outside_are_refused(
    defined, default, low, high, kind, help_text
):
    define("t_size", default, "size", low, high)
    flag = defined["t_size"]
    assert (flag.flag_type(), flag.default, flag.help) == (kind, default, help_text)
    flag.parse(str(low))
    with pytest.raises(flags.IllegalFlagValueError):
        flag.parse(str(low - 1))
    if high is None:
        flag.parse("1000000000")
    else:
        flag.parse(str(high))
        with pytest.raises(flags.IllegalFlagValueError):
            flag.parse(str(high + 1))


def test_tuples_contain_whole_numbers_in_their_range(defined):
    define("t_sizes", (1, 2), "sizes", 1, 9)
    flag = defined["t_sizes"]
    assert (flag.default, flag.help) == (["1", "2"], "sizes, each 1 to 9")
    for wrong in ("", "0", "3,10", "1.5", "x"):
        with pytest.raises(flags.IllegalFlagValueError, match="whole numbers from 1 to 9"):
            defined(["binary", f"--t_sizes={wrong}"])


@dataclasses.dataclass(frozen=True)
class Config:
    where: str
    size: int = setting(3, "size in pixels", 1, 9)
    share: float = setting(0.5, "share of the rest", 0.0)
    limit: int | None = setting(None, "most of them", 1)
    rows: tuple[int, ...] = setting((1, 2), "rows", 1, 5)
    names: tuple[str, ...] = setting(("a",), "names", flag="name")
    parts: tuple[str, ...] = setting(("x",), "parts; repeat it", choices=("x", "y"))
    kind: str = setting("a", "kind", choices=("a", "b"), rare=True)
    fast: bool = setting(True, "whether it is fast")
    home: Path | None = setting(None, "directory")
    made: Path = setting(Path("~/made"), "directory to make")
    silent: int = 7


def test_a_configuration_has_a_flag_for_each_field_with_a_setting(defined):
    config = ConfigFlags(Config, MODEL, defaults={"size": 4}, prefix="t_", without=("fast",))
    found = {name: defined[name] for name in own_flags() if name.startswith("t_")}
    assert {*found, "name"} == {
        f"t_{name}" for name in ("size", "share", "limit", "rows", "parts", "kind", "home", "made")
    } | {"name"}
    assert (found["t_size"].default, found["t_size"].help) == (4, "size in pixels (1 to 9)")
    assert {own_flags()[name] for name in found} == {MODEL, RARE}
    assert own_flags()["t_kind"] == RARE
    defined(["binary"])
    made = Path("~/made").expanduser()
    assert config.config(where="here") == Config("here", size=4, made=made)
    given = ["--t_size=9", "--t_limit=2", "--t_rows=5,1", "--name=b,c", "--t_parts=y", "--t_home=h"]
    defined(["binary", *given, "--t_parts=x", "--t_kind=b", "--t_share=0"])
    assert config.config(where="there", silent=8) == Config(
        "there",
        size=9,
        share=0.0,
        limit=2,
        rows=(5, 1),
        names=("b", "c"),
        parts=("y", "x"),
        kind="b",
        home=Path("h"),
        made=made,
        silent=8,
    )


def test_seeds_have_the_range_that_libraries_accept(defined):
    define("t_seed", 0, "seed of what is drawn", 0, LARGEST_SEED)
    flag = defined["t_seed"]
    assert flag.help == "seed of what is drawn (0 to 2^31 - 1)"
    flag.parse(str(2**31 - 1))
    for wrong in ("-1", str(2**31), str(2**32)):
        with pytest.raises(flags.IllegalFlagValueError):
            flag.parse(wrong)


def test_a_seed_that_codewords_cannot_use_is_a_one_line_error():
    command = [sys.executable, ROOT / "tools/measure_compression.py", f"--seed={2**32}"]
    done = subprocess.run([*command, "--run_dir=nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "--seed=4294967296" in done.stderr.splitlines()[-1]
    assert "[0, 2147483647]" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
