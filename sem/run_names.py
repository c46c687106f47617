"""What the files and folders of a run are called."""

CHECKPOINTS = "checkpoints"
LOCK_FILE = "run.lock"
ACTIVATIONS = "activations.json"
RESULTS = "results"
"""Folder of what a wing leaves beside a run's checkpoints and tables."""
OVERWRITTEN, UNFINISHED = "overwritten", "unfinished"
"""Where a run that is being replaced is until the new one has a checkpoint, and what is left of one that had none."""
