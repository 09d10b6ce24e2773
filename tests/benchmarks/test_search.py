import sys

import pytest
from PIL import Image

from apparel_embed.benchmarks.search import (
    Answer,
    SearchBenchmark,
    measure_search,
    query_images,
    summarise,
)
from apparel_embed.common.errors import UserError
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig

pytestmark = pytest.mark.slow

# Replaces the service: prints its address in the same way, and is ready at once.
SERVICE = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready)
print(f"Search page: http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
"""


def test_the_images_to_search_with_are_the_last_queries(tiny_prepared):
    last = tiny_prepared.read_images(range(len(tiny_prepared) - 2, len(tiny_prepared)))
    assert query_images(tiny_prepared, 2) == last
    assert len(query_images(tiny_prepared, 10_000)) == len(tiny_prepared)


def test_a_dataset_without_queries_is_refused_before_anything_is_measured(tmp_path):
    Image.new("RGB", (24, 24)).save(tmp_path / "a.png")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("image,item_id,vertical,split,role\na.png,1,dress,test,gallery\n")
    prepared = prepare(PrepareConfig(manifest, tmp_path / "prepared"), processes=1)
    with pytest.raises(UserError, match="prepared: no images of role query or both"):
        query_images(prepared, 100)


def test_a_load_without_an_answer_has_no_percentiles():
    assert summarise([]) == {
        "answers": "", "errors": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None,
    }  # fmt: skip


def test_answers_and_refusals_with_retry_after_are_not_errors():
    counts = {"0": 1, "200": 5, "429": 2, "500": 3, "503": 4, "503 without Retry-After": 6}
    answers = [
        Answer(status, 10.0 + number) for status, count in counts.items() for number in range(count)
    ]
    found = summarise(answers)
    assert found["errors"] == 10
    assert found["answers"].startswith("1 x 0, 5 x 200, 2 x 429")
    # Only of answers with status 200.
    assert found["p50_ms"] == 12.0


def test_every_load_is_measured():
    rows = measure_search(SearchBenchmark([sys.executable, "-c", SERVICE], [b"image"], [1, 4], 3))

    assert [(row["load"], row["clients"]) for row in rows] == [
        ("warm-up", 1),
        ("load", 1),
        ("load", 4),
        ("too many at once", 96),
        ("afterwards", 1),
        ("too often", 1),
        ("afterwards", 1),
    ]
    assert all(row["per_second"] > 0 for row in rows)
    assert rows[1]["errors"] == 0 and "x 200" in rows[1]["answers"]
    assert 0 < rows[1]["p50_ms"] <= rows[1]["p99_ms"]
    assert rows[1]["memory_mb"] is None or rows[1]["memory_mb"] > 1


def test_a_service_that_does_not_start_gives_an_error_of_one_line():
    service = [sys.executable, "-c", "import sys; sys.exit('no index here')"]
    with pytest.raises(UserError, match="does not start: no index here"):
        measure_search(SearchBenchmark(service, [b"image"], [1], 3))
