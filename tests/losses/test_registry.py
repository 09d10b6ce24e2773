import dataclasses

import pytest
from addons_losses import needs_addons
from loss_batches import make_batch

from apparel_embed.losses.config import LossConfig
from apparel_embed.losses.keras import TripletSemiHardLoss
from apparel_embed.losses.registry import LOSSES, RegisteredLoss, make_loss
from apparel_embed.losses.semi_hard import semi_hard_triplet_loss
from apparel_embed.losses.triplets import hard_triplet_loss, lifted_structure_loss

LABELS, EMBEDDINGS = make_batch(0, 17, 4, 7, "unit")


def test_semi_hard_is_the_default():
    assert type(make_loss(LossConfig())) is TripletSemiHardLoss


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("semi_hard", semi_hard_triplet_loss),
        pytest.param("tfa_semi_hard", semi_hard_triplet_loss, marks=needs_addons),
        ("hard", hard_triplet_loss),
        ("lifted_structure", lifted_structure_loss),
    ],
)
@pytest.mark.parametrize("distance", ["L2", "squared-L2", "angular"])
def test_a_name_gives_its_loss_with_margin_and_distance(name, function, distance):
    loss = make_loss(LOSSES[name].config(name, margin=0.4, distance=distance))
    expected = function(LABELS, EMBEDDINGS, margin=0.4, distance_metric=distance)
    assert float(loss(LABELS, EMBEDDINGS)) == pytest.approx(float(expected), abs=1e-6)


def test_every_registered_loss_is_tested():
    assert set(LOSSES) == {"semi_hard", "tfa_semi_hard", "hard", "lifted_structure"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "contrastive"}, "loss 'contrastive' is unknown; expected one of semi_hard, hard"),
        ({"distance": "cosine"}, "distance 'cosine' is unknown; expected one of L2"),
        ({"margin": 0.0}, "margin 0.0; expected above 0 and at most 2 with distance L2"),
        ({"margin": 4.5, "distance": "squared-L2"}, "at most 4 with distance squared-L2"),
        ({"margin": float("nan")}, "margin nan"),
    ],
)
def test_an_invalid_configuration_gives_an_error_with_the_valid_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**arguments)


@dataclasses.dataclass(frozen=True)
class SharpenedConfig(LossConfig):
    temperature: float = 0.5


def test_a_loss_with_its_own_parameter_is_registered_with_one_line(monkeypatch):
    sharpened = RegisteredLoss(
        lambda config: TripletSemiHardLoss(config.margin / config.temperature), SharpenedConfig
    )
    monkeypatch.setitem(LOSSES, "sharpened", sharpened)
    assert [field.name for field in dataclasses.fields(LOSSES["sharpened"].config)] == [
        "name", "margin", "distance", "temperature",
    ]  # fmt: skip
    loss = make_loss(SharpenedConfig("sharpened", margin=0.2))
    expected = semi_hard_triplet_loss(LABELS, EMBEDDINGS, margin=0.4)
    assert float(loss(LABELS, EMBEDDINGS)) == pytest.approx(float(expected), abs=1e-6)
    with pytest.raises(ValueError, match="does not configure loss 'sharpened'; use Sharpened"):
        LossConfig("sharpened")
