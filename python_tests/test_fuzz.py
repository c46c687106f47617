"""A few hundred hostile calls of the operators; `make fuzz` makes twenty thousand."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parent.parent / "tools" / "fuzz.py"


def test_hostile_calls_end_as_promised():
    done = subprocess.run([sys.executable, str(TOOL), "--calls", "600", "--seed", "7"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "600 calls, seed 7: 0 findings" in done.stdout
