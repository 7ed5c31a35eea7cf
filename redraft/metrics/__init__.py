"""How far a segmentation is from its reference: overlap, distance, and what a reader would have to redraw.

Conventions, fixed here because implementations of these metrics differ by up to 50 %:

- Masks are boolean arrays (I, J, K); slices are the last axis; spacing is (i, j, k) in mm.
- The *surface* (surface Dice, HD95) is the set of border voxels: mask voxels with a face neighbour outside the mask.
  Outside the image counts as outside the mask. Distances run between voxel centres. Every border voxel counts once.
- HD95 is the larger of the two directed 95th percentiles (linear interpolation).
- The *contour* (path lengths) is drawn per slice by marching squares at level 1/2 on the binary mask: exact along axes
  and diagonals, at most 8.3 % too long in between. See `redraft.metrics.contour`.
- Both masks empty: Dice 1, surface Dice 1, HD95 0, path lengths 0.
- One mask empty: Dice 0, surface Dice 0, HD95 None (there is no distance to nothing); the added path length is the
  whole reference contour, the false-positive contour the whole test contour.
- A distance equal to the tolerance is within the tolerance.
"""

from redraft.metrics.components import stray_components
from redraft.metrics.contour import added_path_length_mm, contour_length_mm, false_positive_contour_mm
from redraft.metrics.exam import METRICS, StructureMetrics, exam_metrics, structure_metrics
from redraft.metrics.overlap import dice
from redraft.metrics.surface import hd95_mm, surface_dice

__all__ = [
    "METRICS",
    "StructureMetrics",
    "added_path_length_mm",
    "contour_length_mm",
    "dice",
    "exam_metrics",
    "false_positive_contour_mm",
    "hd95_mm",
    "stray_components",
    "structure_metrics",
    "surface_dice",
]
