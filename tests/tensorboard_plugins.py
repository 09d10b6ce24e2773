"""TensorBoard's plugins on a log directory, queried in the same way as by its page."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
from werkzeug.test import Client


class Plugin:
    """A plugin that reads the current contents of a directory.

    Args:
      kind: class of the plugin.
      logdir: log directory.
    """

    def __init__(self, kind: type, logdir: Path) -> None:
        runs = EventMultiplexer().AddRunsFromDirectory(str(logdir)).Reload()
        provider = MultiplexerDataProvider(runs, str(logdir))
        self._routes = kind(
            TBContext(logdir=str(logdir), multiplexer=runs, data_provider=provider)
        ).get_plugin_apps()

    def __call__(self, route: str, **query: str) -> bytes:
        """Returns the answer to a GET request."""
        answer = Client(self._routes[route]).get(route, query_string=query)
        assert answer.status_code == 200, answer.data
        return answer.data

    def json(self, route: str, **request: object) -> dict:
        """Returns the answer to a POST request of JSON."""
        answer = Client(self._routes[route]).post(route, data=json.dumps(request))
        assert answer.status_code == 200, answer.data
        return json.loads(answer.data)


def hparams_table(logdir: Path) -> dict[str, tuple[dict, dict]]:
    """Returns the rows of the HParams tab: hparams and metrics by session name."""
    plugin = Plugin(HParamsPlugin, logdir)
    experiment = plugin.json("/experiment")
    request = {
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"hparam": one["name"]} for one in experiment["hparamInfos"]]
        + [{"metric": one["name"]} for one in experiment["metricInfos"]],
        "sliceSize": 100,
    }
    rows = {}
    for group in plugin.json("/session_groups", **request)["sessionGroups"]:
        (session,) = group["sessions"]
        metrics = {one["name"]["tag"]: one["value"] for one in group["metricValues"]}
        rows[session["name"]] = (group["hparams"], metrics)
    return rows
