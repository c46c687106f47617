"""The smallest real model, for tests of what is around it."""

SMALL_MODEL = (
    "model.hidden_dim=16",
    "model.num_layers=1",
    "model.max_seq_length=16",
    "encoder.sdr_candidates=8",
    "encoder.sdr_sparsity=4",
    "encoder.projection_dim=8",
    "spinor.state_dim=4",
    "spinor.mimo_groups=2",
    "propagator.laplacian_sparsity=2",
)
"""Settings of the smallest real model, which trains in milliseconds."""


def as_options(settings):
    """``section.key=value`` settings as the command line takes them."""
    return tuple(f"--{setting}" for setting in settings)
