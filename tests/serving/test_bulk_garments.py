"""Bulk embedding of every garment in photographs, with a model exported with a detector."""

import functools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from serving_models import encoded, photograph
from tiny_run import run_tool

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings
from apparel_embed.inference.bulk import bulk_embed, run_here
from apparel_embed.inference.bulk_shard import NO_GARMENT, BulkConfig
from apparel_embed.inference.bulk_sources import SourceConfig
from apparel_embed.serving import LocalModel
from apparel_embed.serving.local import load_garment_embedder

TOOL = Path(__file__).parents[2] / "tools" / "embed.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("photographs")
    two = {0: (20, 30, 80, 120), 1: (100, 10, 190, 60)}
    for name, image in {
        "a.jpg": encoded(photograph(two), quality=98),
        "b.jpg": encoded(photograph({}, seed=2)),
        "c.jpg": b"broken",
        "d.png": encoded(photograph({1: (5, 5, 90, 140)}, seed=1), "PNG"),
    }.items():
        (directory / name).write_bytes(image)
    return directory


def config_of(photographs, output, manifest=None, shard_images=2):
    kind, location = ("manifest", manifest) if manifest else ("images", photographs)
    source = SourceConfig(
        kind=kind,
        location=str(location),
        shard_images=shard_images,
        settings=ImageSettings(max_side=640, jpeg_quality=100),
    )
    return BulkConfig(source, "fingerprint", str(output), batch_size=2)


def embedded(directory):
    return pq.read_table(sorted(directory.glob("embeddings-*.parquet"))).to_pylist()


def test_every_garment_is_a_row(photographs, exported_with_detector, tmp_path):
    load = functools.partial(load_garment_embedder, str(exported_with_detector))
    summary = bulk_embed(
        config_of(photographs, tmp_path / "out"), functools.partial(run_here, load=load)
    )
    rows = embedded(tmp_path / "out")
    assert [row["image"] for row in rows] == ["a.jpg", "a.jpg", "d.png"]
    assert (summary["images"], summary["embedded"], summary["rejected"]) == (4, 2, 2)
    assert summary["rows"] == 3
    rejected = (tmp_path / "out" / "rejects.csv").read_text().splitlines()
    assert rejected[1] == f"b.jpg,{NO_GARMENT}"
    assert rejected[2].startswith("c.jpg,")
    model = LocalModel(exported_with_detector)
    for name, count in (("a.jpg", 2), ("d.png", 1)):
        (found,) = model.detect([(photographs / name).read_bytes()])
        own = [row for row in rows if row["image"] == name]
        assert len(own) == len(found.verticals) == count
        assert tuple(row["garment_vertical"] for row in own) == found.verticals
        np.testing.assert_allclose([row["garment_box"] for row in own], found.boxes, atol=0.02)
        np.testing.assert_allclose([row["garment_score"] for row in own], found.scores, atol=0.1)
        cosines = np.sum(np.array([row["embedding"] for row in own]) * found.embeddings, axis=1)
        assert cosines.min() > 0.99


def test_a_reserved_column_is_refused(photographs, exported_with_detector, tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"image,garment_score\n{photographs}/a.jpg,1\n")
    load = functools.partial(load_garment_embedder, str(exported_with_detector))
    config = config_of(photographs, tmp_path / "out", manifest)
    with pytest.raises(UserError, match="column 'garment_score' has a reserved name"):
        bulk_embed(config, functools.partial(run_here, load=load))


def test_a_model_without_detector_is_refused(exported):
    with pytest.raises(UserError, match=r"--detect with --model=.*exported with a detector"):
        load_garment_embedder(str(exported))


def test_the_command_line_tool_detects(photographs, exported_with_detector, tmp_path):
    given = [f"--model={exported_with_detector}", f"--images={photographs}"]
    done = run_tool("embed.py", "--detect", *given, f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "3 rows of 2 images" in done.stdout
    assert len(embedded(tmp_path / "out")) == 3
