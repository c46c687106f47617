"""Lifting tokens to complex waves, causally."""

from sem.encoder.mesh_sdr import MeshSDREncoder
from sem.encoder.transport import (
    TransportPlan,
    TransportState,
    continue_transport,
    online_transport,
    sparsify,
    transport_start,
)

__all__ = [
    "MeshSDREncoder",
    "TransportPlan",
    "TransportState",
    "continue_transport",
    "online_transport",
    "sparsify",
    "transport_start",
]
