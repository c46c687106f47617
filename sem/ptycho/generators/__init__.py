"""Networks that read a diffraction pattern and give the patch of the object that made it."""

from sem.ptycho.generator_settings import GeneratorSettings
from sem.ptycho.generators.architectures import CNN, FNO, Generator, Hybrid, build_generator
from sem.ptycho.generators.layers import SpectralConv2d
from sem.ptycho.generators.table import LayerRow, Summary, layers_of, summary

__all__ = [
    "CNN",
    "FNO",
    "Generator",
    "GeneratorSettings",
    "Hybrid",
    "LayerRow",
    "SpectralConv2d",
    "Summary",
    "build_generator",
    "layers_of",
    "summary",
]
