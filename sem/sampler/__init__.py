"""Reading the wave out: Born's rule."""

from sem.sampler.born import BornHead, BornLoss, HeadWeights

__all__ = ["BornHead", "BornLoss", "HeadWeights"]
