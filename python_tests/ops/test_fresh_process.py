"""What a process pays before its first result: imports and the first call of an operator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sem

SUPPORT = Path(__file__).parents[1] / "support"
EAGER = """
import sys
import sem.ops
assert "torch._dynamo" not in sys.modules, "import sem.ops"
from operators import OPERATORS, Layer
from layouts import with_gradients
for operator in OPERATORS:
    problem = operator.plain()
    function = operator.on(problem)
    with_gradients(lambda views: (function(*views), views), [t.requires_grad_() for t in problem.tensors.values()])
    assert "torch._dynamo" not in sys.modules, operator.name
"""
FIRST_CALL = """
import time
from operators import BY_NAME
operator = BY_NAME[{name!r}]
problem = operator.plain()
function, tensors = operator.on(problem), [t.requires_grad_() for t in problem.tensors.values()]
start = time.perf_counter()
outputs = function(*tensors)
middle = time.perf_counter()
outputs[0].abs().sum().backward()
print(middle - start, time.perf_counter() - middle)
"""


def run(code):
    paths = [str(SUPPORT), str(Path(sem.__path__[0]).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_eager_calls_do_not_import_the_compiler():
    run(EAGER)


@pytest.mark.parametrize("name", ["laplacian_matvec_real", "cayley", "scan"])
def test_the_first_call_of_a_process_is_fast(name):
    """50 ms, and ten times that here, since other work may have the processor."""
    forward, backward = map(float, run(FIRST_CALL.format(name=name)).split())
    print(f"first call of {name}: {1e3 * forward:.1f} ms forward, {1e3 * backward:.1f} ms backward")
    assert forward <= 0.5 and backward <= 0.5
