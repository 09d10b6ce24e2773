from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_run import run_tool

from apparel_embed.models.embedding import ModelConfig, build_embedding_model, save_embedding_model

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_binary_embeds_a_directory_and_prints_its_output_path(tiny_prepared, tmp_path):
    config = ModelConfig(image_size=24, embedding_dim=8)
    model = tmp_path / "run" / "student"
    save_embedding_model(model / "model", build_embedding_model(config), config)
    images = tiny_prepared.directory.parent
    output = tmp_path / "out"
    arguments = [f"--model={model}", f"--images={images}/", f"--output={output}/"]
    done = run_tool("embed.py", *arguments, "--dry_run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Embeddings:  {output}: to do (64 images, 64 to embed, in 1 batch of 64)" in done.stdout
    assert not output.exists()
    done = run_tool("embed.py", *arguments, "--threads=1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Embeddings:  {output} (64 rows of 64 images, 8 dimensions)" in done.stdout
    assert pq.read_table(output / "embeddings-00000-of-00001.parquet").num_rows == 64
    done = run_tool("embed.py", *arguments, "--manifest=m.csv")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("got --manifest and --images")
