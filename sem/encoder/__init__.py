"""Lifting tokens to complex waves, causally."""

from sem.encoder.carrier import Carrier
from sem.encoder.embedding import EmbeddingState, EmbeddingWeights, TokenEmbedding
from sem.encoder.mesh_sdr import EncoderWeights, MeshSDREncoder
from sem.encoder.transport import (
    TransportPlan,
    TransportState,
    continue_transport,
    online_transport,
    transport_kernel,
    transport_start,
)
from sem.ops.composed import sparsify

__all__ = [
    "Carrier",
    "EmbeddingState",
    "EmbeddingWeights",
    "EncoderWeights",
    "MeshSDREncoder",
    "TokenEmbedding",
    "TransportPlan",
    "TransportState",
    "continue_transport",
    "online_transport",
    "sparsify",
    "transport_kernel",
    "transport_start",
]
