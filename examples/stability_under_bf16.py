"""Two hundred unitary steps inside a bfloat16 autocast region: by the operator, and by the same matrix in torch."""

import matplotlib.pyplot as plt
import torch

from sem.ops import Topology, cayley

torch.manual_seed(0)
torch.set_num_threads(1)

width, steps, half_dt = 128, 200, 0.1
graph = Topology.small_world(width, degree=8)
weights = torch.rand(graph.num_edges) + 0.5

# The columns of the step, from unit waves. As one real matrix, torch multiplies it in bfloat16.
unitary = cayley(torch.eye(width, dtype=torch.complex64), weights, graph, half_dt)
blocks = torch.cat([torch.cat([unitary.real, unitary.imag], 1), torch.cat([-unitary.imag, unitary.real], 1)])

start = torch.randn(64, width, dtype=torch.complex64)
by_operator, by_matrix = start, torch.cat([start.real, start.imag], 1)
drifts = []
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    for _ in range(steps):
        by_operator = cayley(by_operator, weights, graph, half_dt)
        by_matrix = (by_matrix @ blocks).float()
        norms = torch.stack([by_operator.norm(dim=1), by_matrix.norm(dim=1)])
        drifts.append((norms / start.norm(dim=1) - 1).abs().amax(dim=1))

operator, matrix = torch.stack(drifts).T
print(f"largest change of a norm after {steps} steps: operator {operator[-1]:.1e}, matrix in bfloat16 {matrix[-1]:.1e}")
assert operator.max() < 1e-4 < 10 * matrix[-1]

figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
axes.loglog(range(1, steps + 1), matrix, label="the step as a matrix, under autocast")
axes.loglog(range(1, steps + 1), operator, label="sem.ops.cayley, under autocast")
axes.set(xlabel="step", ylabel="largest change of a norm")
axes.legend()
figure.savefig("stability_under_bf16.png", dpi=100)
