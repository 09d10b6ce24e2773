from pathlib import Path

import pytest
from absl import flags

from apparel_embed.cli import import_flags
from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.layout import LayoutOptions
from apparel_embed.data.importers.splitting import SplitOptions


@pytest.fixture
def config(monkeypatch):
    """Returns a function that parses arguments to a configuration, with separate flags."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for kind in ("string", "enum", "list", "bool", "integer", "float"):
        define = getattr(flags, f"DEFINE_{kind}")

        def own(*arguments, _define=define, **options):
            return _define(*arguments, flag_values=values, **options)

        monkeypatch.setattr(flags, f"DEFINE_{kind}", own)
    defined = import_flags.ImportFlags()

    def parse(*arguments):
        values(["import_dataset.py", "--root=shop", "--output=m.csv", *arguments])
        return defined.config()

    return parse


def test_flags_become_the_configuration(config):
    found = config(
        "--format=table",
        "--table=x.csv",
        "--encoding=cp1252",
        "--image_separator=|",
        "--columns=image:photo, item_id:{style}:{colour} ,note:",
        r"--pattern=(?P<a>\d{1,2})",
        "--map_verticals=blouses:tops,umbrellas:",
        "--map_roles=front:gallery",
        "--split_by=style",
        "--val_fraction=0.1",
        "--split_seed=3",
        "--missing=skip",
        "--nocheck_boxes",
    )
    assert found.options == LayoutOptions(Path("x.csv"), encoding="cp1252")
    assert found.derive.image_separator == "|"
    assert found.derive.columns == {"image": "photo", "item_id": "{style}:{colour}", "note": ""}
    assert found.derive.pattern == r"(?P<a>\d{1,2})"
    assert found.verticals == {"blouses": "tops", "umbrellas": ""}
    assert found.roles == {"front": "gallery"}
    assert found.splits == {}
    assert found.split == SplitOptions(val_fraction=0.1, by="style", seed=3)
    assert (found.missing, found.duplicates, found.check_boxes) == ("skip", "error", False)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--format=table", "--vertical=shoes"], LayoutOptions(vertical="shoes")),
        (["--format=folders"], LayoutOptions()),
        (["--format=folders", "--vertical=shoes"], LayoutOptions(vertical="shoes")),
        (["--format=deepfashion_in_shop"], LayoutOptions()),
        (
            ["--format=deepfashion_in_shop", "--image_dir=img_highres", "--noseparate_genders"],
            LayoutOptions(image_dir="img_highres", separate_genders=False),
        ),
        (["--format=street2shop", "--image_dir=photos"], LayoutOptions(image_dir="photos")),
        (["--format=deepfashion2"], LayoutOptions()),
    ],
)
def test_each_layout_gets_its_options(config, arguments, options):
    assert config(*arguments).options == options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format=folders", "--table=x.csv"], "--table does not apply to --format=folders"),
        (["--format=folders", "--encoding=utf-16"], "--encoding does not apply to --format=fol"),
        (["--format=deepfashion2", "--image_dir=x"], "it is for deepfashion_in_shop, street2shop"),
        (["--format=table", "--vertical= "], "--vertical is empty"),
        (["--format=table", "--columns=photo"], "'photo' is invalid; expected name:column"),
        (["--format=table", "--columns=:photo"], "':photo' is invalid"),
        (["--format=table", "--columns=a:b,a:c"], "'a' occurs twice"),
        (["--format=table", "--map_roles=front"], "--map_roles: 'front' is invalid"),
        (["--format=table", "--map_splits=a:b,a:c"], "--map_splits: 'a' occurs twice; name each"),
        (["--format=table", "--val_fraction=0.6", "--test_fraction=0.4"], "nothing to train on"),
    ],
)
def test_contradictory_or_wrong_flags_are_refused(config, arguments, message):
    with pytest.raises(UserError, match=message):
        config(*arguments)
