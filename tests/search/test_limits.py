import anyio
import httpx
import pytest
from fastapi import FastAPI, Request

from apparel_embed.search.limits import Gate, Limits, TokenBuckets


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_client_has_a_burst_and_then_the_rate():
    clock = Clock()
    buckets = TokenBuckets(rate=2, burst=3, clock=clock)

    assert [buckets.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.wait("b") == 0
    clock.now += 0.25
    assert buckets.wait("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert buckets.wait("a") == 0
    clock.now += 1000
    assert [buckets.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_the_number_of_remembered_clients_is_bounded():
    buckets = TokenBuckets(rate=1, burst=1, clock=Clock())
    for client in range(30_000):
        buckets.wait(str(client))

    assert len(buckets._buckets) == 10_000


def test_a_slow_upload_is_refused():
    app = FastAPI()

    @app.post("/api/search")
    async def search(request: Request):
        return len(await request.body())

    app.add_middleware(Gate, limits=Limits(upload_seconds=0.1), refused=lambda reason: None)

    async def slow():
        yield b"a"
        await anyio.sleep(30)

    async def send():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/api/search", content=slow())

    answer = anyio.run(send)
    assert answer.status_code == 408
    assert "0.1 seconds" in answer.json()["detail"]
