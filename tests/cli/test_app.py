import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))

BINARY = """
from apparel_embed.cli import app
from apparel_embed.cli.define import define
from apparel_embed.common.errors import UserError

_SIZE = define("size", 3, "size in pixels", 1)

def main():
    if _SIZE.value == 7:
        raise UserError("manifest.csv, row 7: too unlucky")
    if _SIZE.value == 8:
        raise RuntimeError("a defect")
    print("size", _SIZE.value)

app.run(main)
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", BINARY, *arguments], capture_output=True, text=True, cwd=ROOT
    )


def test_main_runs_with_parsed_flags():
    done = run("--size=5")

    assert (done.returncode, done.stdout) == (0, "size 5\n")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--size=0", "--size=0: 0 is not a positive integer"),
        ("--size=many", "--size=many"),
        ("--sise=5", "sise"),
        ("extra", "unexpected argument 'extra'"),
        ("--flagfile", "--flagfile with no argument"),
    ],
)
def test_a_wrong_flag_is_a_one_line_error(argument, message):
    done = run(argument)

    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_flag_next_to_a_flag_file_is_a_one_line_error(tmp_path):
    given = tmp_path / "some.flags"
    given.write_text("--size=5\n")
    for named in ([f"--flagfile={given}"], ["--flagfile", str(given)], ["-flagfile", str(given)]):
        done = run("--sise=5", *named)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "Unknown command line flag 'sise'" in line


def test_the_error_for_a_renamed_flag_names_the_new_one():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "search.py", "--picture=a.jpg"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "search.py: --picture is now --image"


def test_a_user_error_is_printed_in_one_line():
    done = run("--size=7")

    assert done.returncode == 1
    assert done.stderr.strip() == "-c: manifest.csv, row 7: too unlucky"


def test_a_defect_keeps_its_traceback():
    done = run("--size=8")

    assert done.returncode == 1
    assert "Traceback" in done.stderr


WAITING = """
import time
from apparel_embed.cli import app

def main():
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up")

app.run(main, resumes=RESUMES)
"""


@pytest.mark.parametrize(
    ("number", "status", "resumes", "message"),
    [
        (
            signal.SIGTERM,
            75,
            True,
            "stopped by SIGTERM; the same command resumes it",
        ),
        (signal.SIGINT, 130, True, "stopped by Ctrl-C; the same command resumes it"),
        (signal.SIGINT, 130, False, "stopped by Ctrl-C"),
    ],
)
def test_a_signal_stops_a_binary_cleanly_with_its_own_status(number, status, resumes, message):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.replace("RESUMES", str(resumes))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    out, err = process.communicate()

    assert process.returncode == status
    assert out == "cleaned up\n"
    assert err == f"-c: {message}\n"


def test_binaries_that_save_their_progress_are_declared_resumable():
    resumable = {
        tool for tool in TOOLS if "resumes=True" in (ROOT / "tools" / tool).read_text("utf-8")
    }
    assert resumable == {
        "embed.py",
        "evaluate.py",
        "prepare_dataset.py",
        "run_pipeline.py",
        "search_groups.py",
        "sweep_group_size.py",
        "train_detector.py",
        "train_specialist.py",
        "train_student.py",
    }


def test_help_shows_the_docstring_then_flags_in_groups():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/import_dataset.py", "--help"], capture_output=True, text=True
    )

    assert done.returncode == 0
    assert done.stdout.startswith("Writes the manifest of a dataset on disk")
    assert "\n\nWhat to work on:\n  --format= " in done.stdout
    assert "\n\nImages and splits:\n  --map_verticals= " in done.stdout
    assert "  --split_by=item_id " in done.stdout
    assert "--verbosity" not in done.stdout


def test_full_help_explains_all_flags_including_those_of_libraries():
    done = run("--helpfull")

    assert done.returncode == 0
    assert "  --size=3                  size in pixels (1 or more)" in done.stdout
    assert "\nFlags of libraries\n" in done.stdout
    assert "--verbosity" in done.stdout


# All binaries in one process, as each would otherwise load TensorFlow again. Collects the flags and
# help texts of each, and the messages for wrong values.
EXAMINE = """
import json, runpy, sys
from absl import flags
import apparel_embed.runs.pipeline  # Defines the flags of libraries, which are not examined.
from apparel_embed.cli import app, help

found, helps = {}, {}
for tool in sys.argv[1:]:
    before = set(flags.FLAGS)
    doc = runpy.run_path(tool)["__doc__"]
    names = sorted(set(flags.FLAGS) - before)
    found[tool] = {
        name: (flags.FLAGS[name].flag_type(), flags.FLAGS[name].help) for name in names
    }
    own = {name: group for name, group in help.own_flags().items() if name in names}
    helps[tool] = [doc, help.help_text(doc, own, full=False), help.help_text(doc, own, full=True)]
    if tool.endswith("run_pipeline.py"):
        messages = {}
        for wrong in json.load(sys.stdin):
            flags.FLAGS.unparse_flags()
            try:
                app.parse_flags([tool, "--run_dir=run", wrong])
            except SystemExit as error:
                messages[wrong] = error.code
            flags.FLAGS[wrong[2:].split("=")[0]].unparse()
    for name in names:
        delattr(flags.FLAGS, name)
print(json.dumps([found, messages, helps]))
"""

WRONG = {
    "--image_size=8": "[32, 1024]",
    "--margin=0": "expected a value above 0, up to 2 with L2",
    "--margin=2.5": "4 with squared-L2",
    "--loss=contrastive": "lifted_structure",
    "--distance=cosine": "squared-L2",
    "--backbone=vgg": "efficientnet_lite_b0",
    "--augment_zoom=2": "0.9]",
    "--specialist_steps=0": "positive integer",
    "--student_learning_rate=fast": "float",
    "--student_loss=l1": "mse|cosine|smooth_l1",
    "--student_vertical_weights=even": "images|equal|sqrt",
    "--align_to=teacher": "combined|none|frozen",
    "--specialist_start=first": "auto|combined|none",
    "--train_backbone=maybe": "yes|no|auto",
    "--recipe=mine": "auto|scratch|pretrained",
    "--pooling=max": "average|gem|pyramid",
    "--patience=-1": "non-negative integer",
    "--combined_steps=0": "positive integer",
    "--student_steps=-1": "non-negative integer",
    "--strategy=horovod": "auto|one|mirrored|multi_worker|tpu",
    "--precision=float64": "float32|bfloat16|float16",
    "--scale_learning_rate=cube": "none|linear|sqrt",
    "--profile_steps=9:3": "with first < end, such as 10:20",
    "--keep_checkpoints=0": "positive integer",
    "--val_fraction=1.5": "0.9]",
    "--serving_max_pixels=0": "[1, 100000000]",
}


@pytest.fixture(scope="module")
def examined():
    done = subprocess.run(
        [sys.executable, "-c", EXAMINE, *(str(ROOT / "tools" / tool) for tool in TOOLS)],
        input=json.dumps(list(WRONG)),
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_flag_has_a_help_text_and_every_number_a_range(examined):
    found, *_ = examined

    assert len(found) == len(TOOLS)
    for tool, flags in found.items():
        assert flags, tool
        for name, (kind, meaning) in flags.items():
            assert len(meaning) > 10, f"{tool} --{name}"
            if kind in ("int", "float"):
                assert re.search(r"\d", meaning), f"{tool} --{name}: no range in {meaning!r}"


@pytest.mark.slow
def test_flags_of_the_same_name_have_the_same_type_in_all_binaries(examined):
    found, *_ = examined
    kinds = {}
    for flags in found.values():
        for name, (kind, _) in flags.items():
            kinds.setdefault(name, set()).add(kind)
    # Some binaries take one value and others several; the load test takes whole seconds.
    assert {name for name, some in kinds.items() if len(some) > 1} <= {
        "split",
        "index_kind",
        "seconds",
    }


@pytest.mark.slow
def test_seeds_have_the_same_range_in_all_binaries(examined):
    found, *_ = examined
    seeds = {
        f"{tool} --{name}": meaning
        for tool, flags in found.items()
        for name, (kind, meaning) in flags.items()
        if kind == "int" and name.rpartition("_")[2] == "seed"
    }
    assert len(seeds) > 10
    assert {one for one, meaning in seeds.items() if "(0 to 2^31 - 1)" not in meaning} == set()


@pytest.mark.slow
def test_help_has_examples_first_and_every_flag_once(examined):
    found, _, helps = examined
    for tool, (doc, short, full) in helps.items():
        assert short.startswith(doc.strip()), tool
        assert f"python tools/{Path(tool).name} " in doc, tool
        for text in (short, full):
            flags = text[len(doc.strip()) :]
            listed = re.findall(r"^  --(\w+)=", flags, re.MULTILINE)
            if text is short:
                listed += re.findall(r"--(\w+)", flags.partition("Rarely needed:")[2])
                listed = [name for name in listed if name not in ("flagfile", "helpfull")]
            assert sorted(listed) == sorted(found[tool]), tool
            assert max(map(len, text.splitlines())) <= 100, tool


@pytest.mark.slow
def test_slow_binaries_have_a_dry_run(examined):
    found, *_ = examined
    assert {Path(tool).stem for tool, flags in found.items() if "dry_run" in flags} == {
        "build_index",
        "embed",
        "export_targets",
        "prepare_dataset",
        "run_pipeline",
        "search_groups",
        "sweep_group_size",
        "train_specialist",
        "train_detector",
        "train_student",
    }


@pytest.mark.slow
def test_short_help_is_at_most_150_lines(examined):
    _, _, helps = examined
    for tool, (_, short, full) in helps.items():
        assert len(short.splitlines()) <= 150, tool
        assert len(full) >= len(short), tool


@pytest.mark.slow
@pytest.mark.parametrize(("argument", "expected"), WRONG.items())
def test_a_wrong_flag_value_is_a_one_line_error_with_the_valid_values(examined, argument, expected):
    _, messages, *_ = examined

    assert expected in messages[argument]
    assert argument.split("=")[0].strip("-") in messages[argument]
    assert len(messages[argument].splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--synthetic_verticals=dress,sock", "choose from dress"),
        ("--manifest=nowhere.csv", "nowhere.csv"),
        ("--init_weights=nowhere.h5", "a weights file"),
        ("--init_from=nowhere", "no such directory; expected a finished run"),
        ("--map_verticals=tops", "expected old:new"),
    ],
)
def test_a_wrong_input_of_the_pipeline_is_a_one_line_error_before_anything_is_written(
    argument, message, tmp_path
):
    done = subprocess.run(
        [sys.executable, ROOT / "tools/run_pipeline.py", f"--run_dir={tmp_path / 'run'}", argument],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )

    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "named",
    [["--flagfile=flags/luma.flags"], ["--flagfile", "flags/luma.flags"]],
    ids=["as one word", "as two words"],
)
def test_other_binaries_refuse_a_flag_file_of_the_pipeline_and_suggest_undefok(named):
    command = [
        sys.executable,
        ROOT / "tools/make_synthetic_dataset.py",
        "--output=nowhere",
        *named,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "--flagfile=flags/luma.flags is for tools/run_pipeline.py" in line
    undefok = line.split()[-1]
    assert undefok.startswith("--undefok=init_weights,manifest,recipe,")
    done = subprocess.run(
        [*command, undefok, "--only_check_args"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("tool", TOOLS)
def test_every_binary_ends_with_what_it_wrote_and_what_to_run_next(tool):
    text = (ROOT / "tools" / tool).read_text("utf-8")
    if tool.startswith("benchmark_"):
        assert "_BENCHMARK.print_results(" in text
    elif tool in ("query_server.py", "serve_search.py", "launch_local.py"):
        # Their output is for programs, or they exit with the command that they run.
        assert "print_summary" not in text
    else:
        assert "print_summary(" in text
        assert '("Next", ' in text
