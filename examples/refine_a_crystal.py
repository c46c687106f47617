"""Find a crystal's cell and orientation in one noisy still image, by the exact gradients of the simulation."""

import matplotlib.pyplot as plt
import torch

from sem.diffraction import Beam, Crystal, Detector, Reflections, Simulator

torch.manual_seed(0)
torch.set_num_threads(1)

true_lengths, true_misset = torch.tensor([70.0, 80.0, 90.0]), torch.tensor([-90.0, -31.0, 178.0])  # Angstrom, degrees


def simulator(lengths: torch.Tensor, misset: torch.Tensor) -> Simulator:
    crystal = Crystal((*lengths.tolist(), 75, 85, 95), cells=(5, 5, 5), misset=tuple(misset.tolist()))
    return Simulator(crystal, Beam(1.0), Detector((128, 128), oversample=2), Reflections(100.0))


with torch.no_grad():
    photons = simulator(true_lengths, true_misset)()
    measured = torch.poisson(photons * 5000 / photons.max() + 2)  # with a background of two counts

model = simulator(true_lengths * torch.tensor([1.003, 0.997, 1.003]), true_misset + torch.tensor([0.12, -0.1, 0.12]))
scale = 5000 / photons.max()
optimizer = torch.optim.LBFGS(
    model.refine("crystal.lengths", "crystal.misset"), max_iter=60, line_search_fn="strong_wolfe", tolerance_change=1e-9
)


def residual() -> torch.Tensor:
    """In standard deviations of the counts."""
    return (model() * scale + 2 - measured) / (measured + 1).sqrt()


def closure() -> torch.Tensor:
    optimizer.zero_grad()
    loss = residual().square().mean()
    loss.backward()
    return loss


before = residual().detach()
optimizer.step(closure)
after = residual().detach()

lengths, misset = model.crystal.lengths.detach(), model.crystal.misset.detach()
print("lengths", [round(x, 3) for x in lengths.tolist()], "misset", [round(x, 3) for x in misset.tolist()])
print(f"mean squared residual: {before.square().mean():.1f} before, {after.square().mean():.2f} after (noise alone: 1)")
assert (lengths - true_lengths).abs().max() < 0.05
assert (misset - true_misset).abs().max() < 0.05

figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
panels[0].imshow(measured.log1p(), cmap="gray_r")
panels[0].set(title="counts (logarithm)")
for panel, image, title in ((panels[1], before, "residual before"), (panels[2], after, "residual after")):
    shown = panel.imshow(image, cmap="RdBu", vmin=-5, vmax=5)
    panel.set(title=title)
figure.colorbar(shown, ax=panels[1:], label="standard deviations")
figure.savefig("refine_a_crystal.png", dpi=70)
