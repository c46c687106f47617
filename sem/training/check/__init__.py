"""``sem check``: a short training run that is judged instead of kept, and what it leaves behind."""

from sem.training.check.run import (
    HELD_OUT_TARGETS,
    CheckDisplay,
    CheckResult,
    check_health,
    check_trainer,
    require_steps,
)

__all__ = ["HELD_OUT_TARGETS", "CheckDisplay", "CheckResult", "check_health", "check_trainer", "require_steps"]
