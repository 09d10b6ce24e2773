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
    ("argument", "said"),
    [
        ("--size=0", "--size=0: 0 is not a positive integer"),
        ("--size=many", "--size=many"),
        ("--sise=5", "sise"),
        ("extra", "unexpected argument 'extra'"),
        ("--flagfile", "--flagfile with no argument"),
    ],
)
def test_a_wrong_flag_ends_with_one_line(argument, said):
    done = run(argument)

    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_flag_beside_a_file_of_flags_ends_with_one_line(tmp_path):
    given = tmp_path / "some.flags"
    given.write_text("--size=5\n")
    for named in ([f"--flagfile={given}"], ["--flagfile", str(given)], ["-flagfile", str(given)]):
        done = run("--sise=5", *named)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "Unknown command line flag 'sise'" in line


def test_a_former_flag_is_refused_with_its_new_name():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "search.py", "--picture=a.jpg"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "search.py: --picture is now --image"


def test_a_user_error_ends_with_one_line():
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
        print("at work", flush=True)
        time.sleep(60)
    finally:
        print("blocks are left")

app.run(main, goes_on=GOES_ON)
"""


@pytest.mark.parametrize(
    ("number", "status", "goes_on", "said"),
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
def test_a_signal_ends_a_binary_in_order_with_a_status_of_its_own(number, status, goes_on, said):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.replace("GOES_ON", str(goes_on))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "at work\n"
    process.send_signal(number)
    out, err = process.communicate()

    assert process.returncode == status
    assert out == "blocks are left\n"
    assert err == f"-c: {said}\n"


def test_binaries_that_keep_what_they_did_say_that_they_go_on():
    goes_on = {
        tool for tool in TOOLS if "goes_on=True" in (ROOT / "tools" / tool).read_text("utf-8")
    }
    assert goes_on == {
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


def test_help_shows_the_docstring_then_flags_in_groups_and_ends_well():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/import_dataset.py", "--help"], capture_output=True, text=True
    )

    assert done.returncode == 0
    assert done.stdout.startswith("Writes the manifest of a dataset on disk")
    assert "\n\nWhat to work on:\n  --format= " in done.stdout
    assert "\n\nImages and splits:\n  --map_verticals= " in done.stdout
    assert "  --split_by=item_id " in done.stdout
    assert "--verbosity" not in done.stdout


def test_full_help_explains_all_flags_those_of_libraries_too():
    done = run("--helpfull")

    assert done.returncode == 0
    assert "  --size=3                  size in pixels (1 or more)" in done.stdout
    assert "\nFlags of libraries\n" in done.stdout
    assert "--verbosity" in done.stdout


# Every binary in one process: each would load TensorFlow anew. For each its flags, and what it says
# to wrong values of them.
EXAMINE = """
import json, runpy, sys
from absl import flags
import apparel_embed.runs.pipeline  # Brings the flags that libraries define, which are not ours.
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
        said = {}
        for wrong in json.load(sys.stdin):
            flags.FLAGS.unparse_flags()
            try:
                app.parse_flags([tool, "--run_dir=run", wrong])
            except SystemExit as error:
                said[wrong] = error.code
            flags.FLAGS[wrong[2:].split("=")[0]].unparse()
    for name in names:
        delattr(flags.FLAGS, name)
print(json.dumps([found, said, helps]))
"""

WRONG = {
    "--image_size=8": "[32, 1024]",
    "--margin=0": "expected above 0, to 2 with L2",
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
    "--profile_steps=9:3": "the second the greater one, as in 10:20",
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
def test_every_flag_of_every_binary_says_what_it_is_and_every_number_its_range(examined):
    found, *_ = examined

    assert len(found) == len(TOOLS)
    for tool, flags in found.items():
        assert flags, tool
        for name, (kind, meaning) in flags.items():
            assert len(meaning) > 10, f"{tool} --{name}"
            if kind in ("int", "float"):
                assert re.search(r"\d", meaning), f"{tool} --{name}: no range in {meaning!r}"


@pytest.mark.slow
def test_the_same_name_is_the_same_kind_of_flag_in_all_binaries(examined):
    found, *_ = examined
    kinds = {}
    for flags in found.values():
        for name, (kind, _) in flags.items():
            kinds.setdefault(name, set()).add(kind)
    # Some take one where others take any number; and the load of a service takes whole seconds.
    assert {name for name, some in kinds.items() if len(some) > 1} <= {
        "split",
        "index_kind",
        "seconds",
    }


@pytest.mark.slow
def test_seeds_have_one_range_in_all_binaries(examined):
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
                listed += re.findall(r"--(\w+)", flags.partition("Seldom needed:")[2])
                listed = [name for name in listed if name not in ("flagfile", "helpfull")]
            assert sorted(listed) == sorted(found[tool]), tool
            assert max(map(len, text.splitlines())) <= 100, tool


@pytest.mark.slow
def test_what_takes_long_can_be_tried_without_doing_it(examined):
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
def test_short_help_explains_no_more_than_is_often_needed(examined):
    _, _, helps = examined
    for tool, (_, short, full) in helps.items():
        assert len(short.splitlines()) <= 150, tool
        assert len(full) >= len(short), tool


@pytest.mark.slow
@pytest.mark.parametrize(("argument", "said"), WRONG.items())
def test_a_wrong_value_of_a_flag_ends_with_one_line_of_what_is_allowed(examined, argument, said):
    _, messages, *_ = examined

    assert said in messages[argument]
    assert argument.split("=")[0].strip("-") in messages[argument]
    assert len(messages[argument].splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--synthetic_verticals=dress,sock", "choose from dress"),
        ("--manifest=nowhere.csv", "nowhere.csv"),
        ("--init_weights=nowhere.h5", "a weights file"),
        ("--init_from=nowhere", "no such directory; name that of a finished run"),
        ("--map_verticals=tops", "each is old:new"),
    ],
)
def test_a_wrong_input_of_the_pipeline_ends_with_one_line_before_anything_is_made(
    argument, said, tmp_path
):
    done = subprocess.run(
        [sys.executable, ROOT / "tools/run_pipeline.py", f"--run_dir={tmp_path / 'run'}", argument],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )

    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "named",
    [["--flagfile=flags/luma.flags"], ["--flagfile", "flags/luma.flags"]],
    ids=["as one word", "as two words"],
)
def test_a_flag_file_of_the_pipeline_is_refused_by_others_with_what_to_add(named):
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
def test_every_binary_ends_by_saying_what_it_wrote_and_what_to_run_next(tool):
    text = (ROOT / "tools" / tool).read_text("utf-8")
    if tool.startswith("benchmark_"):
        assert "_BENCHMARK.tell(" in text
    elif tool in ("query_server.py", "serve_search.py", "launch_local.py"):
        # What they print is for programs, or they end with what they were given to run.
        assert "print_summary" not in text
    else:
        assert "print_summary(" in text
        assert '("Next", ' in text
