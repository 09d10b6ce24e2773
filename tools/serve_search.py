r"""Serves a web page and an HTTP API to search the catalogue by image.

    python tools/serve_search.py --run_dir=runs/mine
    python tools/serve_search.py --run_dir=runs/mine --host=0.0.0.0 --api_key_file=key.txt

Fill the index first with tools/build_index.py. /openapi.json describes the API; /healthz and
/readyz are for probes, /metrics for Prometheus; each request is logged as a JSON line on stderr.
"""

from apparel_embed.cli import app
from apparel_embed.cli.define import define
from apparel_embed.cli.search_flags import LimitFlags, SearchRunFlags, SourceFlags

_RUN = SearchRunFlags()
_SOURCES = SourceFlags(_RUN)
_LIMITS = LimitFlags()
_HOST = define(
    "host", "127.0.0.1", "address to listen on; 0.0.0.0 for all, only behind a TLS proxy"
)
_PORT = define("port", 8080, "port to listen on, 0 for any free port", 0, 65535)


def main() -> None:
    """Serves until it is interrupted."""
    from apparel_embed.search.server import make_service, serve

    with _RUN.filled_index() as index:
        serve(
            lambda: make_service(index, _SOURCES.sources(index), _LIMITS.limits()),
            _HOST.value,
            _PORT.value,
        )


if __name__ == "__main__":
    app.run(main)
