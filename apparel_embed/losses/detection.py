"""The detector's loss, and which cells are to see which garment."""

from __future__ import annotations

import tensorflow as tf

# A cell is to see a garment if it is no farther from its middle than so many parts of its sides,
# or so many cells where that would be less.
_MIDDLE = 0.2
_LEAST_CELLS = 0.75
# How much the hard cells count more than the easy ones.
_FOCUS = 2.0
# Weight of boxes against verticals.
_BOX_WEIGHT = 2.0
_EPSILON = 1e-9


def assign_cells(garments: tf.Tensor, centres: tf.Tensor, cell: float) -> tuple:
    """Tells which garment each cell is to see: of several the smallest.

    Args:
      garments: float32 [batch, most, 5]: place of the vertical, and x_min, y_min, x_max, y_max as
        parts of the square's side; a vertical below 0 is no garment.
      centres: float32 [cells, 2], middles of cells as parts of the square's side.
      cell: side of a cell, as a part of the square's.

    Returns:
      bool [batch, cells], whether a cell is to see a garment; float32 [batch, cells, 4], its box;
      int32 [batch, cells], the place of its vertical. Box and vertical mean nothing where a cell
      sees none.
    """
    boxes = garments[:, tf.newaxis, :, 1:]
    low, high = boxes[..., :2], boxes[..., 2:]
    sides = tf.maximum(high - low, 0.0)
    reach = tf.maximum(_MIDDLE * sides, _LEAST_CELLS * cell)
    points = centres[tf.newaxis, :, tf.newaxis]
    near = tf.reduce_all(tf.abs(points - (low + high) / 2) <= reach, axis=-1)
    inside = tf.reduce_all((points >= low) & (points <= high), axis=-1)
    # A box smaller than a cell may have no middle of a cell in it.
    tiny = tf.reduce_any(sides < cell, axis=-1)
    sees = near & (inside | tiny) & (garments[:, tf.newaxis, :, 0] >= 0)
    areas = tf.where(sees, tf.reduce_prod(sides, axis=-1), tf.float32.max)
    smallest = tf.argmin(areas, axis=-1, output_type=tf.int32)
    seen = tf.gather(garments, smallest, batch_dims=1)
    return tf.reduce_any(sees, axis=-1), seen[..., 1:], tf.cast(seen[..., 0], tf.int32)


def generalised_overlap(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the generalised IoU of boxes, -1 to 1: 1 where they are equal.

    Rezatofighi et al. 2019, "Generalized Intersection over Union", arXiv 1902.09630: unlike IoU it
    falls on where boxes do not touch, and so has a gradient there.

    Args:
      boxes: float32 [..., 4]: x_min, y_min, x_max, y_max.
      others: float32 of the same shape.
    """

    def area(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
        return tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)

    low, high = boxes[..., :2], boxes[..., 2:]
    other_low, other_high = others[..., :2], others[..., 2:]
    both = area(tf.maximum(low, other_low), tf.minimum(high, other_high))
    either = area(low, high) + area(other_low, other_high) - both
    around = area(tf.minimum(low, other_low), tf.maximum(high, other_high))
    return both / (either + _EPSILON) - (around - either) / (around + _EPSILON)


def detection_loss(
    garments: tf.Tensor, boxes: tf.Tensor, logits: tf.Tensor, centres: tf.Tensor
) -> tf.Tensor:
    """Returns how far a detector is from garments: of verticals and boxes, for each garment's cell.

    Focal loss (Lin et al. 2017, arXiv 1708.02002) of verticals over all cells, and generalised IoU
    of boxes over those that see a garment, both per cell that sees one.

    Args:
      garments: float32 [batch, most, 5], as `assign_cells` takes them.
      boxes: float32 [batch, cells, 4], what cells see, as parts of the square's side.
      logits: float32 [batch, cells, verticals].
      centres: float32 [cells, 2], middles of the cells, row by row.

    Returns:
      float32 scalar.
    """
    # The first cell lies in the corner.
    sees, wanted_boxes, verticals = assign_cells(garments, centres, 2.0 * centres[0, 0])
    sees = tf.cast(sees, tf.float32)
    wanted = tf.one_hot(verticals, tf.shape(logits)[-1]) * sees[..., tf.newaxis]
    hardness = tf.abs(wanted - tf.sigmoid(logits)) ** _FOCUS
    of_verticals = hardness * tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits)
    of_boxes = (1.0 - generalised_overlap(boxes, wanted_boxes)) * sees
    count = tf.maximum(tf.reduce_sum(sees), 1.0)
    return (tf.reduce_sum(of_verticals) + _BOX_WEIGHT * tf.reduce_sum(of_boxes)) / count
