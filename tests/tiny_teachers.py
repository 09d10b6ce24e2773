"""Untrained specialists of the tiny dataset, which differ in their seeds."""

from apparel_embed.distillation.targets import Targets, TargetsConfig, Teacher, compute_targets
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.execution import reset_and_seed

MODEL = ModelConfig(image_size=32, embedding_dim=8)
VERTICALS = ("bags", "dresses")


def write_model(directory, seed, config=MODEL):
    reset_and_seed(seed)
    model = build_embedding_model(config)
    save_embedding_model(directory, model, config)
    return model


def both(teachers):
    return [Teacher(name, (name,), teachers / name) for name in VERTICALS]


def targets_of(dataset, teachers, reference=None, **config) -> Targets:
    """Returns the targets of a student with the teachers' embedding size."""
    config = TargetsConfig(dim=MODEL.embedding_dim, **config)
    return compute_targets(dataset, teachers, reference=reference, config=config)


def taught(targets):
    """Returns training and held-out records with their targets, as taken by `train_student`."""
    return (
        (targets.records, targets.embeddings),
        (targets.held_out_records, targets.held_out),
    )
