"""Flags of a tiny pipeline: all stages run, but the models are useless."""

TINY = [
    "--synthetic_train_items=6",
    "--synthetic_val_items=3",
    "--synthetic_image_size=48",
    "--processes=1",
    "--image_size=32",
    "--embedding_dim=8",
    "--items_per_batch=4",
    "--images_per_item=2",
    "--combined_steps=3",
    "--specialist_steps=4",
    "--student_steps=4",
    "--student_batch_size=8",
    "--validate_every=2",
]
