"""How every binary starts: parse flags, run, and tell mistakes in one line."""

from __future__ import annotations

import logging as python_logging
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from tqdm.contrib.logging import logging_redirect_tqdm

from apparel_embed.errors import UserError
from apparel_embed.interruption import INTERRUPTED, Stopped, stopped_by_sigterm


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Returns the arguments left after flags; ends with one line if a flag is wrong."""
    binary = os.path.basename(argv[0])
    _list_own_flags_in_help(argv[0])
    try:
        rest = flags.FLAGS(list(argv))
    except flags.Error as error:
        line = " ".join(str(error).split())
        sys.exit(f"{binary}: {line} (--help lists the flags)")
    if len(rest) > 1:
        sys.exit(
            f"{binary}: unexpected argument {rest[1]!r}; "
            "everything is given as --flag=value (--help lists the flags)"
        )
    return rest


def _list_own_flags_in_help(main_module: str) -> None:
    """Makes --help list the flags of `apparel_embed.cli`; absl lists the main module's alone."""
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith(f"{__package__}."):
            for flag in defined:
                flags.FLAGS.register_key_flag_for_module(main_module, flag)


def run(main: Callable[[], None]) -> None:
    """Runs `main` after parsing flags; a `UserError` becomes one line and exit status 1.

    SIGTERM ends it with status 75, Ctrl-C with 130, each when its blocks are left: what can go on
    later is saved by then.

    Args:
      main: the binary's work, called without arguments.
    """

    def body(argv: Sequence[str]) -> None:
        # Python's own handler in place of absl's: tqdm knows how to write its lines above a bar.
        python_logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
        logging.set_verbosity(logging.INFO)
        # TensorFlow tells of each collective operation that it traces, several hundred times.
        python_logging.getLogger("tensorflow").setLevel(python_logging.WARNING)
        binary = os.path.basename(argv[0])
        try:
            with stopped_by_sigterm(), logging_redirect_tqdm():
                main()
        except UserError as error:
            sys.exit(f"{binary}: {error}")
        except Stopped as stop:
            _say_stopped(binary, "SIGTERM")
            sys.exit(stop.code)
        except KeyboardInterrupt:
            _say_stopped(binary, "Ctrl-C")
            sys.exit(INTERRUPTED)

    app.run(body, flags_parser=parse_flags)


def _say_stopped(binary: str, what: str) -> None:
    print(f"{binary}: stopped by {what}; the same command goes on where it was", file=sys.stderr)
