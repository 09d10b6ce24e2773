"""Entry point of every binary: parses flags, runs, and reports a user's mistake in one line."""

from __future__ import annotations

import logging as python_logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from tqdm.contrib.logging import logging_redirect_tqdm

from apparel_embed.cli.binaries import as_called, flag_file
from apparel_embed.cli.help import define_help_flags
from apparel_embed.cli.recipes import apply_recipe
from apparel_embed.common.errors import UserError
from apparel_embed.common.interruption import INTERRUPTED, Stopped, stopped_by_sigterm
from apparel_embed.common.text import one_line

# Flag files are written for this binary.
_PIPELINE = "run_pipeline.py"


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Returns the arguments left after flags; exits with a one-line error if a flag is wrong."""
    binary = os.path.basename(argv[0])
    argv = [re.sub(r"(?<=^--flagfile=).+", lambda name: flag_file(name[0]), one) for one in argv]
    define_help_flags()
    try:
        rest = flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as error:
        sys.exit(as_called(f"{binary}: {_unknown(error, binary, argv)}"))
    except flags.Error as error:
        sys.exit(f"{binary}: {one_line(error)} (--help lists the flags)")
    if len(rest) > 1:
        sys.exit(
            f"{binary}: unexpected argument {rest[1]!r}; "
            "expected only --flag=value (--help lists the flags)"
        )
    return rest


def _unknown(error: flags.UnrecognizedFlagError, binary: str, argv: Sequence[str]) -> str:
    """Returns the error message for a flag that the binary does not have."""
    new = error.flagname.replace("picture", "image")
    if new != error.flagname and new.removeprefix("no") in flags.FLAGS:
        return f"--{error.flagname} is now --{new}"
    file = re.search(r"\0--?flagfile[=\0]([^\0]*)", "\0".join(argv))
    read = flags.FLAGS.read_flags_from_files(list(argv[1:]), force_gnu=False)
    named = {one.lstrip("-").partition("=")[0] for one in set(read) - set(argv)}
    unknown = {one for one in named if not {one, one.removeprefix("no")} & set(flags.FLAGS)}
    if binary == _PIPELINE or file is None or error.flagname not in unknown:
        return f"{one_line(error)} (--help lists the flags)"
    return (
        f"--flagfile={file[1]} is for tools/{_PIPELINE} and sets flags that {binary} does not "
        f"have; to ignore them, add --undefok={','.join(sorted(unknown))}"
    )


def run(main: Callable[[], None], *, resumes: bool = False) -> None:
    """Runs `main` after parsing flags; a `UserError` becomes one line and exit status 1.

    SIGTERM exits with status 75 and Ctrl-C with 130, after all context managers have exited, so
    resumable state has been saved.

    Args:
      main: the binary's work, called without arguments. It contains the slow imports, such as
        TensorFlow, so that help and flag errors appear at once.
      resumes: whether running the same command again resumes the work instead of starting over.
    """

    def body(argv: Sequence[str]) -> None:
        # Python's own handler instead of absl's: tqdm can write its lines above a progress bar.
        python_logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
        logging.set_verbosity(logging.INFO)
        # TensorFlow logs each collective operation that it traces, several hundred times.
        tensorflow_logger = python_logging.getLogger("tensorflow")
        tensorflow_logger.setLevel(python_logging.WARNING)
        # Its profiler calls a function that TensorFlow has deprecated.
        tensorflow_logger.addFilter(lambda record: "flops_registry" not in record.getMessage())
        logging.get_absl_logger().addFilter(_is_not_false_alarm)
        binary = os.path.basename(argv[0])
        try:
            with stopped_by_sigterm(), logging_redirect_tqdm():
                apply_recipe()
                main()
        except UserError as error:
            sys.exit(as_called(f"{binary}: {error}"))
        except Stopped as stop:
            _print_stopped(binary, "SIGTERM", resumes)
            sys.exit(stop.code)
        except KeyboardInterrupt:
            _print_stopped(binary, "Ctrl-C", resumes)
            sys.exit(INTERRUPTED)

    app.run(body, flags_parser=parse_flags)


def _is_not_false_alarm(record: python_logging.LogRecord) -> bool:
    """Returns False for TensorFlow's warnings about renamed inputs during an export.

    TensorFlow mistakes the model's variables for inputs, all named "resource". No input of a
    signature is renamed.
    """
    return record.filename != "signature_serialization.py"


def _print_stopped(binary: str, cause: str, resumes: bool) -> None:
    again = "; the same command resumes it" if resumes else ""
    print(f"{binary}: stopped by {cause}{again}", file=sys.stderr)
