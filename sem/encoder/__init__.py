"""Lifting tokens to complex waves, causally."""

from sem.encoder.mesh_sdr import MeshSDREncoder
from sem.encoder.transport import TransportPlan, online_transport, sparsify

__all__ = ["MeshSDREncoder", "TransportPlan", "online_transport", "sparsify"]
