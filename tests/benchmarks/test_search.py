import json
import stat
import sys

import pytest
from PIL import Image

from apparel_embed.benchmarks.search import (
    LOCUST,
    LoadMeasurement,
    SearchBenchmark,
    percentile,
    query_pictures,
    run_search_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.common.errors import UserError
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig

pytestmark = pytest.mark.slow

# Stands in for the service: tells its address as that does, and is ready at once.
SERVICE = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Ready)
print(f"Search page: http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
"""
# Stands in for Locust, whose environment takes a minute to make: what that prints for two statuses.
STATS = [
    {"name": "200", "num_requests": 4, "response_times": {"10": 3, "50": 1}},
    {"name": "503", "num_requests": 2, "response_times": {"1": 2}},
]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 10), (0.75, 10), (0.76, 50), (0.95, 50), (0.99, 200)]
)
def test_percentiles_are_counted_from_the_histogram(share, expected):
    assert percentile({"50": 24, "10": 75, "200": 1}, share + (share == 0.99) * 0.005) == expected


def test_pictures_to_search_by_are_the_last_queries(tiny_prepared):
    last = tiny_prepared.read_images(range(len(tiny_prepared) - 2, len(tiny_prepared)))
    assert query_pictures(tiny_prepared, 2) == last
    assert len(query_pictures(tiny_prepared, 10_000)) == len(tiny_prepared)


def test_a_dataset_without_queries_is_refused_before_anything_is_measured(tmp_path):
    Image.new("RGB", (24, 24)).save(tmp_path / "a.png")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("image,item_id,vertical,split,role\na.png,1,dress,test,gallery\n")
    prepared = prepare(PrepareConfig(manifest, tmp_path / "prepared"), processes=1)
    with pytest.raises(UserError, match="prepared: has no query pictures to search by"):
        query_pictures(prepared, 100)


def test_without_answers_there_is_no_percentile():
    assert percentile({}, 0.5) == 0


def test_only_what_is_neither_answer_nor_refusal_is_an_error():
    counts = {"0": 1, "200": 5, "429": 2, "500": 3, "503": 4, "503 without Retry-After": 6}

    assert LoadMeasurement("load", 1, 1, counts, 1, 1, 1, 1).errors == 10


def test_every_load_is_measured(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "installed").write_text(f"{LOCUST}\n")
    locust = tmp_path / "bin" / "locust"
    locust.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps(STATS))})\n")
    locust.chmod(locust.stat().st_mode | stat.S_IEXEC)
    found = run_search_benchmark(
        SearchBenchmark([sys.executable, "-c", SERVICE], [b"picture"], [1, 4], 3, tmp_path)
    )

    assert [(one.name, one.clients) for one in found] == [
        ("warm-up", 1),
        ("load", 1),
        ("load", 4),
        ("too many at once", 96),
        ("afterwards", 1),
        ("too often", 1),
        ("afterwards", 1),
    ]
    assert found[1].statuses == {"200": 4, "503": 2}
    assert (found[1].p50_ms, found[1].p95_ms) == (10, 50)
    assert found[1].memory_mb > 1
    assert "4 x 200, 2 x 503" in table_of(found)
    assert json.loads(json.dumps(summary_of(found)))["loads"][1]["errors"] == 0


def test_a_service_that_does_not_start_is_told_in_one_line(tmp_path):
    (tmp_path / "installed").write_text(f"{LOCUST}\n")
    with pytest.raises(UserError, match="does not start: no index here"):
        run_search_benchmark(
            SearchBenchmark(
                [sys.executable, "-c", "import sys; sys.exit('no index here')"],
                [b"picture"],
                [1],
                3,
                tmp_path,
            )
        )
