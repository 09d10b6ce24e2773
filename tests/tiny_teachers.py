"""Specialists of the tiny dataset that have learnt nothing, told apart by their seeds."""

from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.strategy import start_afresh
from apparel_embed.training.targets import Teacher

MODEL = ModelConfig(image_size=32, embedding_dim=8)
VERTICALS = ("bags", "dresses")


def write_model(directory, seed, config=MODEL):
    start_afresh(seed)
    model = build_embedding_model(config)
    save_embedding_model(directory, model, config)
    return model


def both(teachers):
    return [Teacher((name,), teachers / name) for name in ("bags", "dresses")]
