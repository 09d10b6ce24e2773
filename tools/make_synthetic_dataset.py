r"""Draws synthetic garments, to try everything without downloading a dataset.

    python tools/make_synthetic_dataset.py --output=data/garments

draws 4,600 images of 920 items in 8 verticals, in less than a minute on two cores. A small dataset:

    python tools/make_synthetic_dataset.py --output=data/few --synthetic_verticals=dress,top \
      --synthetic_train_items=8 --synthetic_val_items=2 --synthetic_test_items=4
"""

from pathlib import Path

from apparel_embed.cli import app
from apparel_embed.cli.data_flags import synthetic_flags
from apparel_embed.cli.define import define
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.shared_flags import ProcessesFlag
from apparel_embed.data.synthetic.generate import generate

_OUTPUT = define("output", None, "directory to write", required=True)
_SYNTHETIC = synthetic_flags()
_PROCESSES = ProcessesFlag()


def main() -> None:
    """Draws the dataset and prints a summary."""
    result = generate(_SYNTHETIC.config(), Path(_OUTPUT.value), _PROCESSES.value)
    if result.skipped:
        print("The dataset already exists, drawn with the same settings; nothing to do.")
    prepare = {"manifest": result.manifest, "output": "data/prepared"}
    print_summary(
        [
            ("Manifest", f"{result.manifest} ({result.images} images)"),
            ("Contact sheet", result.contact_sheet),
            *([("Street scenes", result.scene_sheet)] if result.scene_sheet else []),
            ("Known cues", result.world),
            ("Next", command("tools/prepare_dataset.py", **prepare)),
        ]
    )


if __name__ == "__main__":
    app.run(main)
