"""The detector's loss, and the assignment of garments to cells."""

from __future__ import annotations

import tensorflow as tf

# A cell is assigned to a garment if its distance from the garment's centre is at most _MIDDLE times
# the garment's sides, or _LEAST_CELLS cells if that is more.
_MIDDLE = 0.2
_LEAST_CELLS = 0.75
# Exponent of the focal loss: how much more hard cells count than easy ones.
_FOCUS = 2.0
# Weight of the box loss relative to the vertical loss.
_BOX_WEIGHT = 2.0
_EPSILON = 1e-9


def assign_cells(garments: tf.Tensor, centres: tf.Tensor, cell: float) -> tuple:
    """Assigns a garment to each cell: the smallest one if there are several.

    Args:
      garments: float32 [batch, most, 5]: index of the vertical, and x_min, y_min, x_max, y_max as
        fractions of the square's side. Rows whose vertical is below 0 are padding.
      centres: float32 [cells, 2], centres of cells as fractions of the square's side.
      cell: side of a cell, as a fraction of the square's.

    Returns:
      bool [batch, cells], whether a cell has a garment; float32 [batch, cells, 4], its box;
      int32 [batch, cells], the index of its vertical. Box and vertical are undefined for cells
      without a garment.
    """
    boxes = garments[:, tf.newaxis, :, 1:]
    low, high = boxes[..., :2], boxes[..., 2:]
    sides = tf.maximum(high - low, 0.0)
    reach = tf.maximum(_MIDDLE * sides, _LEAST_CELLS * cell)
    points = centres[tf.newaxis, :, tf.newaxis]
    near = tf.reduce_all(tf.abs(points - (low + high) / 2) <= reach, axis=-1)
    inside = tf.reduce_all((points >= low) & (points <= high), axis=-1)
    # A box smaller than a cell may not contain the centre of any cell.
    tiny = tf.reduce_any(sides < cell, axis=-1)
    sees = near & (inside | tiny) & (garments[:, tf.newaxis, :, 0] >= 0)
    areas = tf.where(sees, tf.reduce_prod(sides, axis=-1), tf.float32.max)
    smallest = tf.argmin(areas, axis=-1, output_type=tf.int32)
    seen = tf.gather(garments, smallest, batch_dims=1)
    return tf.reduce_any(sees, axis=-1), seen[..., 1:], tf.cast(seen[..., 0], tf.int32)


def generalised_overlap(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the generalised IoU of boxes, -1 to 1: 1 for equal boxes.

    Rezatofighi et al. 2019, "Generalized Intersection over Union", arXiv 1902.09630. Unlike IoU it
    keeps falling as disjoint boxes move apart, so it has a gradient there.

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
    """Returns the detector's loss: of verticals and boxes, per cell with a garment.

    The focal loss (Lin et al. 2017, arXiv 1708.02002) of verticals over all cells plus the
    generalised IoU loss of boxes over cells with a garment, divided by the number of the latter.

    Args:
      garments: float32 [batch, most, 5], as in `assign_cells`.
      boxes: float32 [batch, cells, 4], predicted boxes, as fractions of the square's side.
      logits: float32 [batch, cells, verticals].
      centres: float32 [cells, 2], centres of the cells, row by row.

    Returns:
      float32 scalar.
    """
    # The first cell lies in the corner, so its centre is half a side from the edges.
    sees, wanted_boxes, verticals = assign_cells(garments, centres, 2.0 * centres[0, 0])
    sees = tf.cast(sees, tf.float32)
    wanted = tf.one_hot(verticals, tf.shape(logits)[-1]) * sees[..., tf.newaxis]
    hardness = tf.abs(wanted - tf.sigmoid(logits)) ** _FOCUS
    of_verticals = hardness * tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits)
    of_boxes = (1.0 - generalised_overlap(boxes, wanted_boxes)) * sees
    count = tf.maximum(tf.reduce_sum(sees), 1.0)
    return (tf.reduce_sum(of_verticals) + _BOX_WEIGHT * tf.reduce_sum(of_boxes)) / count
