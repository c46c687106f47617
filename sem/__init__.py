"""SEM: a causal complex-wave language model on native operators."""

__version__ = "0.1.0"
