"""One training step, the loop around it, and what a run needs: schedule, checkpoints, health, logs."""
