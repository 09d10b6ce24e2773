"""The REST side of the client."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.serving.errors import (
    DeadlineExceeded,
    ModelNotFound,
    RequestRefused,
    ServerUnavailable,
    ServingError,
    WrongAnswer,
)

if TYPE_CHECKING:
    from apparel_embed.serving.client import ClientConfig

_UNAVAILABLE = (429, 502, 503, 504)
_ERRORS = {
    **dict.fromkeys(_UNAVAILABLE, ServerUnavailable),
    400: RequestRefused,
    404: ModelNotFound,
    408: DeadlineExceeded,
    412: RequestRefused,
    413: RequestRefused,
}


class RestTransport:
    """Asks TensorFlow Serving's REST API.

    Args:
      address: `http://host:port` or `https://host:port`.
      config: how to ask.
    """

    def __init__(self, address: str, config: ClientConfig) -> None:
        version = "" if config.version is None else f"/versions/{config.version}"
        self._address, self._config = address, config
        self._url = f"{address.rstrip('/')}/v1/models/{config.model_name}{version}:predict"
        retry = Retry(
            total=config.attempts - 1,
            # What was sent and not answered in time is not sent again: the deadline has passed.
            read=False,
            backoff_factor=0.1,
            backoff_max=2,
            status_forcelist=_UNAVAILABLE,
            allowed_methods={"POST"},
            raise_on_status=False,
        )
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def predict(self, pictures: list[bytes]) -> Mapping[str, np.ndarray]:
        """Returns the outputs of `serving_default` for a batch.

        Raises:
          ServingError: as one of its kinds.
        """
        instances = [{"image_bytes": {"b64": base64.b64encode(one).decode()}} for one in pictures]
        request: dict[str, Any] = {"signature_name": "serving_default", "instances": instances}
        try:
            answer = self._session.post(self._url, json=request, timeout=self._config.deadline)
        except requests.Timeout as error:
            raise DeadlineExceeded(
                f"{self._address}: no answer in {self._config.deadline:g} s"
            ) from error
        except requests.ConnectionError as error:
            raise ServerUnavailable(f"{self._address}: no connection ({error})") from error
        except requests.RequestException as error:
            raise UserError(f"{self._address}: no address of a server ({error})") from error
        found = _json(answer)
        if not answer.ok:
            reason = found.get("error") if isinstance(found, dict) else None
            details = one_line(reason or answer.reason)
            kind = _ERRORS.get(answer.status_code, ServingError)
            raise kind(f"{self._address}: status {answer.status_code}: {details}")
        try:
            rows = found["predictions"]
            return {name: np.array([row[name] for row in rows]) for name in rows[0]}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WrongAnswer(
                f"{self._address}: the answer is no predictions ({error!r})"
            ) from error

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
