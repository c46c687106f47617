"""What the layers of a model do on a whole data set: statistics of activations, their file, plot and comparison.

It knows no particular model: layers are the submodules that return tensors, where their axes lie is told.
"""

from sem.activations.blocks import Block
from sem.activations.comparison import Change, Comparison, compare
from sem.activations.gradients import flat, gradient_statistics, layer_parameters
from sem.activations.layers import layers_of
from sem.activations.layout import Layout, layout_by_axes
from sem.activations.measurement import measure
from sem.activations.plot import plot_depth
from sem.activations.record import Activations, Summary, read, write

__all__ = [
    "Activations",
    "Block",
    "Change",
    "Comparison",
    "Layout",
    "Summary",
    "compare",
    "flat",
    "gradient_statistics",
    "layer_parameters",
    "layers_of",
    "layout_by_axes",
    "measure",
    "plot_depth",
    "read",
    "write",
]
