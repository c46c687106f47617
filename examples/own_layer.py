"""Learn the couplings of a lattice from waves before and after a step, with the norm-preserving step as the layer."""

import matplotlib.pyplot as plt
import torch

from sem.ops import Topology, cayley

torch.manual_seed(0)
torch.set_num_threads(1)


class Propagation(torch.nn.Module):
    """One unitary step of a wave equation on a graph whose couplings are parameters."""

    def __init__(self, width: int, step: float) -> None:
        super().__init__()
        self.graph = Topology.small_world(width, degree=6)
        self.raw = torch.nn.Parameter(torch.zeros(self.graph.num_edges))
        self.step = step

    @property
    def couplings(self) -> torch.Tensor:
        return torch.nn.functional.softplus(self.raw)  # an edge's weight may not be negative

    def forward(self, psi: torch.Tensor) -> torch.Tensor:
        return cayley(psi, self.couplings, self.graph, half_dt=self.step / 2)


truth, model = Propagation(64, 0.4), Propagation(64, 0.4)
with torch.no_grad():
    truth.raw.copy_(torch.randn(truth.raw.shape))

optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
errors = []
for _ in range(300):
    before = torch.randn(32, 64, dtype=torch.complex64)
    after = truth(before).detach() + 0.01 * torch.randn(32, 64, dtype=torch.complex64)  # measured, with noise
    loss = (model(before) - after).abs().square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    errors.append((model.couplings - truth.couplings).abs().mean().item())

psi = torch.randn(1000, 64, dtype=torch.complex64)
drift = (model(psi).norm(dim=1) / psi.norm(dim=1) - 1).abs().max().item()
print(f"mean error of a coupling: {errors[0]:.3f} at first, {errors[-1]:.4f} now; a norm changes by {drift:.1e}")
assert errors[-1] < 0.02
assert drift < 1e-5

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.semilogy(errors)
left.set(xlabel="step", ylabel="mean error of a coupling")
right.plot([0, 4], [0, 4], color="grey", linewidth=0.8)
right.plot(truth.couplings.detach(), model.couplings.detach(), ".")
right.set(xlabel="true coupling", ylabel="learned coupling")
figure.savefig("own_layer.png", dpi=100)
