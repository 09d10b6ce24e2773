"""Flags of what the search service allows."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli.define import define_number
from apparel_embed.common.errors import UserError
from apparel_embed.data.pictures import LARGEST_MAX_PIXELS
from apparel_embed.search.limits import Limits


class LimitFlags:
    """What the service allows."""

    def __init__(self) -> None:
        default = Limits()
        self._max_mb = define_number(
            "max_upload_mb", default.max_bytes / 1e6, "of an upload, in MB", 0.01, 1e3
        )
        self._max_pixels = define_number(
            "max_pixels",
            default.max_pixels,
            "of an uploaded picture, told before it is decoded",
            1,
            LARGEST_MAX_PIXELS,
        )
        self._rate = define_number(
            "rate",
            default.rate,
            "searches per second that a client may make in the long run, 0 for any number",
            0,
            1_000_000,
        )
        self._burst = define_number(
            "burst", default.burst, "searches that a client may make at once", 1
        )
        self._workers = define_number(
            "workers", default.workers, "searches worked on at once", 1, 256
        )
        self._waiting = define_number(
            "waiting",
            default.waiting,
            "searches that may wait for a worker; more are refused with 503",
            0,
            100_000,
        )
        self._upload_seconds = define_number(
            "upload_seconds",
            default.upload_seconds,
            "how long an upload may take, in seconds",
            0.1,
            3600.0,
        )
        self._api_key_file = flags.DEFINE_string(
            "api_key_file",
            None,
            "file of a key that every request must bring in the header X-API-Key; by default none "
            "is needed",
        )

    def limits(self) -> Limits:
        """Returns what the service allows.

        Raises:
          UserError: if the key's file cannot be read or is empty.
        """
        return Limits(
            max_bytes=int(self._max_mb.value * 1e6),
            max_pixels=self._max_pixels.value,
            rate=self._rate.value,
            burst=self._burst.value,
            workers=self._workers.value,
            waiting=self._waiting.value,
            upload_seconds=self._upload_seconds.value,
            api_key=read_api_key(self._api_key_file.value),
        )


def read_api_key(path: str | None) -> str:
    """Returns the key in a file; "" without a file.

    Raises:
      UserError: if it cannot be read, or has no key.
    """
    if not path:
        return ""
    try:
        key = Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--api_key_file={path}: cannot be read as ASCII text: {error}") from error
    if not key:
        raise UserError(f"--api_key_file={path}: is empty; a key is needed")
    return key
