"""Tables of embeddings to index."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from search_images import unit_vectors

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.embeddings import write_embeddings
from apparel_embed.search.build import build_index
from apparel_embed.search.index import Version, open_index
from apparel_embed.search.source import bulk_rows, image_key, stored_records
from apparel_embed.serving.local import LocalModel

COUNT = 20


def write(path, **columns):
    """Writes a table of COUNT images, with some columns replaced."""
    table = {
        "image": [f"{place}.jpg" for place in range(COUNT)],
        "item_id": [f"item{place}" for place in range(COUNT)],
        "vertical": ["dress"] * COUNT,
        "embedding": unit_vectors(COUNT).tolist(),
    }
    pq.write_table(pa.table({**table, **columns}), path)
    return path


def read(path):
    return [image for images, _ in bulk_rows(path) for image in images]


@pytest.mark.parametrize(
    ("column", "values", "texts"),
    [
        ("item_id", list(range(COUNT)), [str(place) for place in range(COUNT)]),
        ("item_id", pa.array(range(COUNT), pa.uint64()), [str(place) for place in range(COUNT)]),
        ("item_id", [float(2**53 - 1)] * COUNT, [str(2**53 - 1)] * COUNT),
        ("item_id", ["007", *["b"] * (COUNT - 1)], ["007", *["b"] * (COUNT - 1)]),
        ("item_id", [7.0, None, float("nan"), *[1.0] * 17], ["7", "", "", *["1"] * 17]),
        ("item_id", pa.nulls(COUNT), [""] * COUNT),
        ("item_id", pa.array(["a"] * COUNT).dictionary_encode(), ["a"] * COUNT),
        ("vertical", list(range(COUNT)), [str(place) for place in range(COUNT)]),
    ],
)
def test_whole_numbers_are_read_as_texts_and_a_missing_item_as_none(
    tmp_path, column, values, texts
):
    images = read(write(tmp_path / "a.parquet", **{column: values}))

    name = {"item_id": "item"}.get(column, column)
    assert [getattr(image, name) for image in images] == texts


def test_images_without_an_item_do_not_hide_each_other(tmp_path, new_index):
    write(tmp_path / "a.parquet", item_id=[f"a{place}" for place in range(10)] + [None] * 10)
    with open_index(new_index()) as index:
        version = build_index(index, Version("m" * 64, 8), bulk_rows(tmp_path)).version
        hits = index.search(version, unit_vectors(COUNT)[12], COUNT)
    assert sorted(hit.image.image for hit in hits) == sorted(f"{n}.jpg" for n in range(COUNT))
    assert hits[0].image.image == "12.jpg"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"vertical": [*["dress"] * 3, None, *["dress"] * 16]},
            "row 4: column 'vertical' is empty; expected a text",
        ),
        ({"vertical": [""] * COUNT}, "row 1: column 'vertical' is empty; expected a text"),
        ({"image": [None] * COUNT}, "row 1: column 'image' is empty; expected a text"),
        (
            {"item_id": [1.0, 1.5, *[2.0] * 18]},
            "row 2: column 'item_id': 1.5; expected text or a whole number",
        ),
        # From here on, a double may represent several whole numbers.
        ({"item_id": [float(2**53)] * COUNT}, "row 1: column 'item_id': 9007199254740992.0;"),
        ({"item_id": [float("inf")] * COUNT}, "row 1: column 'item_id': inf;"),
        (
            {"x_min": ["a"] * 20, "y_min": [0] * 20, "x_max": [1] * 20, "y_max": [1] * 20},
            "row 1: columns x_min, y_min, x_max, y_max: got a, 0, 1, 1; expected four numbers",
        ),
        (
            {"embedding": [[1.0, 0.0], [1.0], *[[1.0, 0.0]] * 18]},
            "row 2: column 'embedding' has 1 numbers; expected 2, as before",
        ),
        ({"embedding": [["a"]] * COUNT}, "row 1: column 'embedding' contains values that are not"),
        ({"embedding": ["a"] * COUNT}, "row 1: column 'embedding' contains values that are not"),
    ],
)
def test_an_invalid_value_is_reported_with_its_file_row_and_column(tmp_path, columns, message):
    path = write(tmp_path / "odd.parquet", **columns)
    with pytest.raises(UserError, match=rf"odd\.parquet: {message}"):
        read(path)


def test_row_numbers_continue_through_the_file(tmp_path):
    count = 2_500
    table = {
        "image": ["a.jpg"] * count,
        "item_id": ["a"] * count,
        "vertical": ["dress"] * (count - 1) + [None],
        "embedding": np.eye(2)[np.zeros(count, int)].tolist(),
    }
    pq.write_table(pa.table(table), tmp_path / "long.parquet")
    with pytest.raises(UserError, match="row 2500: column 'vertical'"):
        read(tmp_path / "long.parquet")


def test_boxes_are_numbers_or_the_texts_of_a_manifest(tmp_path):
    edges = ("x_min", "y_min", "x_max", "y_max")
    texts = [["1", "2", "30", "4.5"], *[[""] * 4] * 19]
    numbers = [[1, 2, 30, 4.5], *[[None] * 4] * 19]
    floats = [[1.0, 2.0, 30.0, 4.5], *[[float("nan")] * 4] * 19]
    for number, rows in enumerate((texts, numbers, floats)):
        boxes = dict(zip(edges, map(list, zip(*rows))))
        keys = [one.key for one in read(write(tmp_path / f"{number}.parquet", **boxes))]
        assert keys[:2] == [image_key("0.jpg", (1, 2, 30, 4.5)), image_key("1.jpg")]


@pytest.mark.slow
def test_stored_embeddings_of_another_model_or_dataset_are_refused(catalogue, tmp_path):
    model, dataset = LocalModel(catalogue.saved_model), catalogue.dataset
    records, path = np.arange(len(dataset)), tmp_path / "stored.parquet"
    made = model.embed(dataset.read_images(records))[0]
    write_embeddings(path, records, made)
    kept = np.concatenate([part for _, part in stored_records(dataset, records, path, model)])
    np.testing.assert_allclose(kept, made, atol=1e-6)

    write_embeddings(path, records, unit_vectors(len(records), made.shape[1]))
    with pytest.raises(UserError, match=r"stored\.parquet: embeddings of another model, or of ano"):
        next(stored_records(dataset, records, path, model))
