r"""Gets embeddings of images from a server or a SavedModel.

    python tools/query_server.py --address=localhost:8500 --image=dress.jpg --image=bag.webp
    python tools/query_server.py --saved_model=runs/mine/saved_model/1 --image=dress.jpg

Prints one JSON object per image: its path, whether it is valid, its predicted vertical (if the
model has a vertical head) and the embedding. With --detect (if the model has a detector), prints
the garments of each photograph instead: box in pixels of the upright image, vertical, score and
embedding. Files that cannot be read are named at the end, with status 1; the others are answered.
"""

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.define import ConfigFlags, define
from apparel_embed.common.errors import UserError
from apparel_embed.serving.client import Client, ClientConfig

_ADDRESS = define("address", None, "server to query: host:port for gRPC, http://host:port for REST")
_SAVED_MODEL = define(
    "saved_model", None, "directory of a version, to load here instead of querying a server"
)
_IMAGES = define(
    "image", None, "image file, in any format; repeat it for more", repeat=True, required=True
)
_DETECT = define(
    "detect", False, "print the garments in each image; requires a model with a detector"
)
_CLIENT = ConfigFlags(ClientConfig, without=("batch_size", "batch_bytes"))
flags.register_multi_flags_validator(
    ["address", "saved_model"],
    lambda values: bool(values["address"]) != bool(values["saved_model"]),
    "expected exactly one of --address and --saved_model",
)


def main() -> None:
    """Sends the images and prints the responses."""
    from apparel_embed.serving.local import LocalModel
    from apparel_embed.serving.query import answer_lines, garment_lines, read_images

    images, failures = read_images(_IMAGES.value)
    if not images:
        raise UserError("; ".join(failures))
    to_lines = garment_lines if _DETECT.value else answer_lines
    if _SAVED_MODEL.value:
        lines = to_lines(images, LocalModel(_SAVED_MODEL.value))
    else:
        with Client(_ADDRESS.value, _CLIENT.config()) as client:
            lines = to_lines(images, client)
    print("\n".join(lines))
    if failures:
        raise UserError("; ".join(failures))


if __name__ == "__main__":
    app.run(main)
