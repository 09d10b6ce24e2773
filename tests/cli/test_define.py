import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from apparel_embed.cli.define import define_number, define_seed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def defined():
    """Forgets what a test defines, as flags are of the whole process."""
    before = set(flags.FLAGS)
    yield flags.FLAGS
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("default", "low", "high", "kind", "told"),
    [
        (3, 1, 9, "int", "size (1 to 9)"),
        (3, 1, None, "int", "size (1 or more)"),
        (0.5, 0.0, 0.9999, "float", "size (0 to 0.9999)"),
        (0.5, 0, 1_000_000, "float", "size (0 to 1000000)"),
        (None, 1, None, "int", "size (1 or more)"),
        (None, 0.1, None, "float", "size (0.1 or more)"),
    ],
)
def test_help_tells_the_range_and_values_outside_are_refused(
    defined, default, low, high, kind, told
):
    define_number("t_size", default, "size", low, high)
    flag = defined["t_size"]
    assert (flag.flag_type(), flag.default, flag.help) == (kind, default, told)
    flag.parse(str(low))
    with pytest.raises(flags.IllegalFlagValueError):
        flag.parse(str(low - 1))
    if high is None:
        flag.parse("1000000000")
    else:
        flag.parse(str(high))
        with pytest.raises(flags.IllegalFlagValueError):
            flag.parse(str(high + 1))


def test_seeds_end_where_libraries_end(defined):
    define_seed("what is drawn", "t_seed")
    flag = defined["t_seed"]
    assert flag.help == "seed of what is drawn (0 to 2^31 - 1)"
    flag.parse(str(2**31 - 1))
    for wrong in ("-1", str(2**31), str(2**32)):
        with pytest.raises(flags.IllegalFlagValueError):
            flag.parse(wrong)


def test_a_seed_that_codewords_cannot_have_ends_with_one_line():
    command = [sys.executable, ROOT / "tools/measure_compression.py", f"--seed={2**32}"]
    done = subprocess.run([*command, "--run_dir=nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "--seed=4294967296" in done.stderr.splitlines()[-1]
    assert "[0, 2147483647]" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
