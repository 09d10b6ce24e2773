"""Users of the search service, for Locust: each asks again as soon as it is answered.

Needs nothing but Locust, so that it runs in an environment without the package. PICTURES in the
environment names a directory of JPEG files to ask with.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from locust import FastHttpUser, constant, task

_PICTURES = [path.read_bytes() for path in sorted(Path(os.environ["PICTURES"]).glob("*.jpg"))]
_TURNS = itertools.cycle(_PICTURES)
_HEADERS = {"Content-Type": "multipart/form-data; boundary=picture"}


def _form(picture: bytes) -> bytes:
    return (
        b'--picture\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + picture + b"\r\n--picture--\r\n"
    )


class Searcher(FastHttpUser):
    """Searches, and counts answers by their status."""

    wait_time = constant(0)
    connection_timeout = network_timeout = 60.0

    @task
    def search(self) -> None:
        """Asks once; a refusal that tells how long to wait is waited for, briefly."""
        with self.client.post(
            "/api/search", data=_form(next(_TURNS)), headers=_HEADERS, catch_response=True
        ) as response:
            status = str(response.status_code)
            refused = status in ("429", "503")
            if refused and not response.headers.get("Retry-After"):
                status += " without Retry-After"
            response.request_meta["name"] = status
            response.success()
        if refused:
            # Shorter than asked for: the load is to stay.
            import gevent

            gevent.sleep(0.2)
