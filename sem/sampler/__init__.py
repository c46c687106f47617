"""Reading probabilities of the next token from a wave."""

from sem.sampler.born import BornHead, BornWeights
from sem.sampler.chunked import IGNORED, HeadLoss, ReadOut, SoftTargets
from sem.sampler.coherent import CoherentHead, CoherentWeights

__all__ = [
    "IGNORED",
    "BornHead",
    "BornWeights",
    "CoherentHead",
    "CoherentWeights",
    "HeadLoss",
    "ReadOut",
    "SoftTargets",
]
