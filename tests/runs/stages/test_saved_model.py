import dataclasses
import json
import re
import shutil

import pytest
import yaml
from tiny_teachers import MODEL, write_model

from apparel_embed.common.errors import UserError
from apparel_embed.models.config import DetectorConfig
from apparel_embed.models.detector import build_detector, save_detector
from apparel_embed.models.vertical_head import VerticalHead
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.evaluation import Models, evaluation_stage
from apparel_embed.runs.stages.saved_model import (
    export_stage,
    latest_saved_model,
    serving_kit,
    versions_directory,
)
from apparel_embed.runs.stages.vertical_head import vertical_head_stage
from apparel_embed.serving import LocalModel
from apparel_embed.serving.exported import (
    read_absent_thresholds,
    read_routing_confidence,
    saved_model_versions,
)
from apparel_embed.serving.saved_model import ExportConfig
from apparel_embed.store.record import StageSpec, open_stage
from apparel_embed.store.runs import run_stage

pytestmark = pytest.mark.slow

CONFIG = ExportConfig(max_pixels=1_000_000, warm_up=False)


@pytest.fixture(scope="module")
def run_dir(tiny_prepared, tmp_path_factory):
    """A run with the targets of a student."""
    run_dir = tmp_path_factory.mktemp("run")
    teachers = [
        {"name": f"specialist-{name}", "verticals": [name]} for name in tiny_prepared.verticals
    ]
    run_stage(
        StageSpec(run_dir / "targets", flags={}, inputs={}, work=lambda _: {"teachers": teachers})
    )
    return run_dir


@pytest.fixture(scope="module")
def student(run_dir):
    targets = run_stage(StageSpec(run_dir / "targets", flags={}, inputs={}, work=lambda _: {}))

    def train(directory):
        return {"parameters": write_model(directory / "model", seed=3).count_params()}

    return run_stage(
        StageSpec(
            run_dir / "student",
            flags={"model": dataclasses.asdict(MODEL), "verticals": []},
            inputs={"targets": targets.fingerprint},
            work=train,
        )
    )


@pytest.fixture(scope="module")
def head(run_dir, tiny_prepared, student):
    return vertical_head_stage(Run(run_dir, tiny_prepared), student)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """The stage of an untrained detector of another run."""
    config = DetectorConfig(("hat", "shoe"), image_size=64, most_garments=4)

    def train(directory):
        save_detector(directory / "model", build_detector(config), config)
        return {}

    directory = tmp_path_factory.mktemp("street") / "detector"
    return run_stage(StageSpec(directory, flags={}, inputs={}, work=train))


@pytest.fixture(scope="module")
def exported(run_dir, tiny_prepared, student):
    return export_stage(Run(run_dir, tiny_prepared), student, CONFIG)


def files(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_the_first_version_is_1_and_is_found_again(run_dir, tiny_prepared, student, exported):
    before = files(exported.directory)
    again = export_stage(Run(run_dir, tiny_prepared), student, CONFIG)

    assert exported.directory == run_dir / "saved_model" / "1"
    assert again.directory == exported.directory
    assert files(exported.directory) == before
    assert latest_saved_model(run_dir / "saved_model").fingerprint == exported.fingerprint
    assert LocalModel(exported.directory).verticals == tiny_prepared.verticals


def test_another_stage_is_exported_to_a_directory_that_no_server_polls(tmp_path):
    assert versions_directory(tmp_path, "student") == tmp_path / "saved_model"
    assert versions_directory(tmp_path, "combined") == tmp_path / "saved_model-combined"


def test_the_model_card_lists_data_groups_and_limits(exported):
    card = (exported.directory / "assets/model_card.md").read_text("utf-8")

    assert "| bags | 8 | 16 | 8 |" in card
    assert "- bags\n- dresses\n" in card
    assert "Not evaluated" in card
    assert "1,000,000 pixels" in card
    assert "32 px" in card


def test_another_export_is_the_next_version_and_keeps_the_first(
    run_dir, tiny_prepared, student, exported, head
):
    before = files(exported.directory)
    base = run_dir / "saved_model"
    (base / "notes").mkdir()
    (base / "2.partial").mkdir()
    (base / "2.partial" / "stage.json").write_text(
        '{"schema_version": 3, "flags": {}, "inputs": {}}'
    )
    second = export_stage(Run(run_dir, tiny_prepared), student, CONFIG, vertical_head=head)

    assert second.directory == base / "2"
    assert files(exported.directory) == before
    assert saved_model_versions(base) == [base / "1", base / "2"]
    model = LocalModel(second.directory)
    assert model.verticals == ("bags", "dresses")
    image = tiny_prepared.read_images([0])
    assert model.embed(image).vertical_scores.sum() == pytest.approx(1)
    assert head.result["routing_confidence"] is None
    assert read_routing_confidence(second.directory) is None
    card = (second.directory / "assets/model_card.md").read_text("utf-8")
    assert f"not known: {head.result['searches']}" in card
    assert "16 val queries" in card
    # Exporting the first model again finds its version, although there is a newer one.
    assert (
        export_stage(Run(run_dir, tiny_prepared), student, CONFIG).directory == exported.directory
    )


def test_a_model_that_was_redone_with_the_same_flags_is_exported_again(
    run_dir, tiny_prepared, student, tmp_path
):
    base = tmp_path / "saved_model"
    first = export_stage(Run(run_dir, tiny_prepared), student, CONFIG, base=base)
    # For example with `--redo_from=student` and another release of TensorFlow.
    redone = dataclasses.replace(student, finished="2999-01-01T00:00:00+00:00")
    second = export_stage(Run(run_dir, tiny_prepared), redone, CONFIG, base=base)

    assert first.directory == base / "1"
    assert second.directory == base / "2"


def test_the_routing_confidence_is_exported_with_the_head(
    run_dir, tiny_prepared, student, head, tmp_path
):
    def calibrated(directory):
        found = dataclasses.replace(VerticalHead.load(head.directory), routing_confidence=0.1 + 0.2)
        found.save(directory)
        return {"searches": "From 0.300 on."}

    sure = run_stage(StageSpec(tmp_path / "vertical_head", flags={}, inputs={}, work=calibrated))
    found = export_stage(
        Run(run_dir, tiny_prepared), student, CONFIG, vertical_head=sure, base=tmp_path / "versions"
    )
    path = found.directory / "assets/routing_confidence.txt"

    assert read_routing_confidence(found.directory) == 0.1 + 0.2
    assert "From 0.300 on." in (found.directory / "assets/model_card.md").read_text("utf-8")
    path.write_text("0,9")
    with pytest.raises(UserError, match=r"routing_confidence\.txt: expected a number .*'0,9'"):
        read_routing_confidence(found.directory)


def test_a_detector_is_exported_with_the_model(run_dir, tiny_prepared, student, detector, tmp_path):
    run = Run(run_dir, tiny_prepared)
    found = export_stage(run, student, CONFIG, detector=detector, base=tmp_path / "versions")
    model = LocalModel(found.directory)

    assert found.inputs["detector"] == detector.fingerprint
    assert model.detects
    assert model.verticals == tiny_prepared.verticals
    (garments,) = model.detect(tiny_prepared.read_images([0]))
    assert (garments.valid, garments.verticals) == (True, ())
    card = (found.directory / "assets/model_card.md").read_text("utf-8")
    assert "finds up to 4 garments (hat, shoe), each with a score of\n0.3 or more" in card
    serving_kit(found, tmp_path / "kit")
    readme = (tmp_path / "kit/README.md").read_text("utf-8")
    assert '"signature_name": "detect_and_embed"' in readme
    # An export without the detector is a new version.
    without = export_stage(run, student, CONFIG, base=tmp_path / "versions")
    assert without.directory.name == "2"
    assert not LocalModel(without.directory).detects
    assert "Garments of a photograph" not in (without.directory / "assets/model_card.md").read_text(
        "utf-8"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("detector.json", "the detector cannot be read"),
        ("detector.weights.h5", "the detector cannot be read"),
        (None, "expected a detector, but"),
    ],
)
def test_a_detector_that_cannot_be_read_is_refused(
    run_dir, tiny_prepared, student, detector, tmp_path, name, reason
):
    shutil.copytree(detector.directory, tmp_path / "detector")
    if name:
        (tmp_path / "detector/model" / name).write_bytes(b"no detector")
    else:
        shutil.rmtree(tmp_path / "detector/model")
    broken = open_stage(tmp_path / "detector")
    with pytest.raises(UserError, match=reason) as error:
        export_stage(
            Run(run_dir, tiny_prepared), student, CONFIG, detector=broken, base=tmp_path / "base"
        )
    assert "\n" not in str(error.value)
    assert str(tmp_path / "detector/model") in str(error.value)
    assert saved_model_versions(tmp_path / "base") == []


def test_foreign_versions_are_counted_and_left_unchanged(tiny_prepared, student, run_dir, tmp_path):
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "saved_model.pb").write_text("another's")
    found = export_stage(Run(run_dir, tiny_prepared), student, CONFIG, base=tmp_path)

    assert found.directory == tmp_path / "6"
    assert (tmp_path / "5" / "saved_model.pb").read_text() == "another's"
    assert latest_saved_model(tmp_path / "nowhere") is None


def test_model_card_and_summary_contain_the_cost_of_routing_after_an_evaluation(
    run_dir, tiny_prepared, student, head
):
    # The head may be trained after an evaluation, which is then repeated.
    for vertical_head in (None, head):
        evaluation_stage(
            Run(run_dir, tiny_prepared),
            Models(student=student),
            split="test",
            init_weights="none",
            seed=0,
            vertical_head=vertical_head,
        )
    third = export_stage(Run(run_dir, tiny_prepared), student, CONFIG, vertical_head=head)
    card = (third.directory / "assets/model_card.md").read_text("utf-8")

    assert third.directory.name == "3"
    assert "| routed | ALL | 16 | 16 |" in card
    assert "names the right vertical of a query with accuracy" in card
    tables = (run_dir / "evaluation/tables.txt").read_text()
    assert "| served | ALL | 16 | 16 |" in card
    assert "searching as served, always in all verticals" in tables
    assert "always searching the vertical that its head predicts" in tables
    items = json.loads((run_dir / "evaluation/items.json").read_text())
    assert {row["index_by"] for row in items["rows"]} == {"image", "item"}
    assert {one["scope"] for one in items["differences"]} == {"within", "merged"}


def test_thresholds_of_the_evaluation_are_exported_with_the_student(
    run_dir, tiny_prepared, student, head, tmp_path
):
    run = Run(run_dir, tiny_prepared)
    evaluation = evaluation_stage(
        run,
        Models(student=student),
        split="test",
        init_weights="none",
        seed=0,
        vertical_head=head,
    )
    path = evaluation.directory / "absent.json"
    absent = json.loads(path.read_text())
    # There are too few val items for a threshold at any level.
    assert {one["threshold"] for row in absent["rows"] for one in row["levels"]} == {None}
    assert [row["vertical"] for row in absent["rows"]] == ["bags", "dresses", "ALL", "ALL"]
    tables = (evaluation.directory / "tables.txt").read_text()
    assert "unified: split val has too few items for verdicts" in tables
    absent["rows"][0]["levels"][1]["threshold"] = 0.1 + 0.2
    path.write_text(json.dumps(absent))
    found = export_stage(run, student, CONFIG, base=tmp_path / "new").directory
    assert read_absent_thresholds(found, "0.05") == {"bags": 0.1 + 0.2}
    assert read_absent_thresholds(found, "0.1") == {}
    card = (found / "assets/model_card.md").read_text("utf-8")
    assert "| within | bags | 32 | 2 | 0.05 | 0.300 | - | - |" in card

    # Evaluations of earlier releases lack these measurements.
    path.unlink()
    older = export_stage(run, student, CONFIG, base=tmp_path / "older").directory
    assert read_absent_thresholds(older, "0.05") is None
    assert "Same item" not in (older / "assets/model_card.md").read_text("utf-8")


def test_the_kit_serves_the_versions_next_to_the_exported_one(exported, tmp_path):
    serving_kit(exported, tmp_path / "kit")
    compose = yaml.safe_load((tmp_path / "kit/docker-compose.yaml").read_text())
    (service,) = compose["services"].values()

    models = re.match(r"\$\{MODELS:-(\.\.?/.*)\}:", service["volumes"][0])[1]
    assert (tmp_path / "kit" / models).resolve() == exported.directory.parent.resolve()
    for path in (tmp_path / "kit").iterdir():
        assert str(tmp_path.parent) not in path.read_text("utf-8")
    # Images of at most a million pixels need little memory.
    assert service["mem_limit"] == "3g"
    readme = (tmp_path / "kit/README.md").read_text("utf-8")
    assert "`vertical` contains" not in readme
    assert "detect_and_embed" not in readme
    with pytest.raises(UserError, match="exists"):
        serving_kit(exported, tmp_path / "kit")
