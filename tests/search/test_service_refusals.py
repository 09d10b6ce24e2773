"""Requests that the search service refuses: bad uploads, too many, or without an API key."""

import threading

import httpx
import pytest
from fastapi.testclient import TestClient
from search_requests import encoded, search

from apparel_embed.serving.local import LocalModel

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "empty file"),
        (b"this is not an image", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (encoded()[:-400], "truncated"),
        (encoded(kind="JPEG")[:300], "truncated"),
        (encoded()[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + encoded()[24:], "not an image"),
    ],
)
def test_an_unusable_image_is_refused(client, image, message):
    answer = search(client, image)

    assert answer.status_code == 422
    assert message in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_images_of_any_format_and_name_are_searched(client, kind):
    for name in ("image", "фото \U0001f457.png", "../../etc/passwd", "a" * 2000, 'q"\\.jpg'):
        answer = search(client, encoded(kind=kind), name, "application/octet-stream")
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["hits"]) == 12


def test_an_image_of_too_many_pixels_is_refused_before_decoding(service):
    with TestClient(service(max_pixels=1000)) as client:
        answer = search(client, encoded(60, 40))

    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "60x40 pixels are more than the 1000 allowed",
    )


def test_an_upload_of_too_many_bytes_is_refused_with_or_without_its_length(client):
    def stream():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield b"0" * 10_000
        yield b"\r\n--x--\r\n"

    chunked = client.post(
        "/api/search",
        content=stream(),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    for answer in (search(client, b"0" * 1_000_000), search(client, b"0" * 200_001), chunked):
        assert (answer.status_code, answer.json()["detail"]) == (
            413,
            "the image is too large; expected at most 0.2 MB",
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"box": "1,2,3"}, "x_min,y_min,x_max,y_max"),
        ({"box": "nan,0,1,1"}, "x_min,y_min,x_max,y_max"),
        ({"box": "1e9,0,1,1"}, "x_min,y_min,x_max,y_max"),
        ({"box": "5,0,1,1"}, "empty"),
        ({"box": "500,500,600,600"}, "lies outside the image of 60x40 pixels"),
        ({"vertical": "hat"}, "unknown vertical 'hat'; expected one of bag, dress"),
        ({"vertical": 'bag" or key != "'}, "unknown vertical"),
        ({"k": "0"}, "k: "),
        ({"k": "101"}, "k: "),
        ({"k": "many"}, "k: "),
        ({"all_verticals": "perhaps"}, "all_verticals: "),
    ],
)
def test_an_invalid_parameter_is_refused(client, fields, message):
    answer = search(client, encoded(), **fields)

    assert answer.status_code == 422
    assert message in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x"),
        (b"\x00\xff", "multipart/form-data; boundary=" + "x" * 300),
        (b"{}", "application/json"),
        (b"file=%00", "application/x-www-form-urlencoded"),
        (b"\xff\xfe", "text/plain"),
    ],
)
def test_a_body_that_is_not_an_upload_is_refused(client, content, kind):
    answer = client.post("/api/search", content=content, headers={"Content-Type": kind})

    assert answer.status_code in (400, 422)
    assert isinstance(answer.json()["detail"], str)


def test_an_upload_without_a_file_name_gives_a_clear_message(client):
    answer = client.post("/api/search", data={"file": "no file"})

    assert answer.status_code == 422
    assert answer.json()["detail"] == "file: not a file; send it with a file name"


def test_every_answer_has_security_headers(client):
    for path in ("/", "/api/info", "/nowhere", "/images/x", "/examples/0"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_without_the_key_only_the_page_and_probes_answer(service, catalogue):
    with TestClient(service(api_key="sesame")) as client:
        for path in ("/", "/app.js", "/healthz", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200
        for headers in ({}, {"X-API-Key": "no"}, {"X-API-Key": "sésame".encode()}):
            assert search(client, encoded(), headers=headers).status_code == 401
            for path in ("/api/info", "/examples/0", "/images/" + "0" * 32, "/metrics"):
                assert client.get(path, headers=headers).status_code == 401
        for headers in ({"X-API-Key": "sesame"}, {"Authorization": "Bearer sesame"}):
            assert search(client, encoded(), headers=headers).status_code == 200
            assert client.get("/api/info", headers=headers).status_code == 200


def test_a_client_over_the_rate_limit_has_to_wait(service):
    with TestClient(service(rate=0.01, burst=2)) as client:
        answers = [search(client, encoded()) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 100
        assert client.get("/api/info").status_code == 200


def test_the_service_answers_503_under_overload_and_then_recovers(service, monkeypatch):
    import anyio

    app = service(workers=1, waiting=2)
    go = threading.Event()
    embed = LocalModel.embed
    monkeypatch.setattr(LocalModel, "embed", lambda *a: go.wait(30) and embed(*a))

    async def send():
        statuses = []
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def one():
                answer = await client.post("/api/search", files={"file": encoded()})
                statuses.append((answer.status_code, answer.headers.get("retry-after")))
                if len(statuses) == 5:
                    go.set()

            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(one)
            await one()
        return statuses

    statuses = anyio.run(send)
    assert statuses[:5] == [(503, "1")] * 5
    assert statuses[5:] == [(200, None)] * 4


def test_a_failing_index_gives_503_and_a_bug_500_without_details(service, catalogue, monkeypatch):
    from apparel_embed.common.errors import UserError

    def fail(error):
        def search(*arguments, **named):
            raise error

        return search

    with TestClient(service(), raise_server_exceptions=False) as client:
        monkeypatch.setattr(catalogue.index, "search", fail(UserError("/secret/index: gone")))
        answers = [search(client, encoded())]
        monkeypatch.setattr(catalogue.index, "search", fail(RuntimeError("/secret/code")))
        answers.append(search(client, encoded()))
        monkeypatch.setattr(catalogue.index, "current", fail(UserError("gone")))
        answers.append(client.get("/readyz"))
    assert [answer.status_code for answer in answers] == [503, 500, 503]
    assert not any("secret" in answer.text for answer in answers)
