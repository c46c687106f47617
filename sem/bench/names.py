"""What command lines choose from, without what has these names, which needs torch."""

from __future__ import annotations

BY_ADAMW = "_adamw"
"""How the name of a language model ends that is trained with AdamW alone."""
PEERS = ("mingru", "gru", "gpt")
ENTRANTS = ("sem", *PEERS, *(name + BY_ADAMW for name in PEERS))
"""The models that learn side by side; what each is stands in :mod:`sem.bench.language_models`."""
GOALS = ("known", "start", "photons", "modes", "positions")
"""What engines of ptychography are to reach; :mod:`sem.bench.engines` says how."""
