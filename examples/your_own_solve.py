"""An operator of your own: a solve with exact gradients, here the regularisation of a deblurring filter, learned."""

import matplotlib.pyplot as plt
import torch

from sem.ops import cg_solve

torch.manual_seed(0)
torch.set_num_threads(1)
side = 48

frequency = torch.fft.fftfreq(side)
square = frequency[:, None].square() + frequency.square()
blur = torch.exp(-60 * square)  # of a camera, as a product in Fourier space
roughness = 4 * torch.sin(torch.pi * frequency[:, None]).square() + 4 * torch.sin(torch.pi * frequency).square()


def filtered(images: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """``images`` as rows ``[n, side * side]``, each multiplied by ``by`` in Fourier space."""
    return torch.fft.ifft2(torch.fft.fft2(images.view(-1, side, side)) * by).real.flatten(1)


def deblurred(images: torch.Tensor, log_smoothness: torch.Tensor) -> torch.Tensor:
    """The minimum of ``|blur x - image|^2 + smoothness |gradient x|^2``, for each row on its own.

    The matrix of these normal equations is only ever applied; that it is symmetric and positive is all that the solve
    needs. The gradient for ``log_smoothness``, which the function encloses, is that of the solution, however many
    iterations there were.
    """
    smoothness = log_smoothness.exp()
    x, info = cg_solve(lambda v: filtered(v, blur.square() + smoothness * roughness), filtered(images, blur), rtol=1e-4)
    assert info.converged.all(), info.message()
    return x


def shapes(count: int) -> torch.Tensor:
    """Images of random rectangles."""
    images = torch.zeros(count, side, side)
    for image in images:
        for top, left, height, width in torch.randint(4, 24, (5, 4)).tolist():
            image[top : top + height, left : left + width] += 0.3
    return images.flatten(1)


sharp = shapes(16)
seen = filtered(sharp, blur) + 0.02 * torch.randn_like(sharp)

log_smoothness = torch.tensor(0.0, requires_grad=True)
optimizer = torch.optim.Adam([log_smoothness], lr=0.5)
path = []
for _ in range(40):
    loss = (deblurred(seen[:12], log_smoothness) - sharp[:12]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    path.append((log_smoothness.exp().item(), loss.item()))
    optimizer.step()

with torch.no_grad():
    found = deblurred(seen[12:], log_smoothness)
before, after = ((images - sharp[12:]).square().mean().item() for images in (seen[12:], found))
print(f"smoothness {log_smoothness.exp():.2e}; squared error of others: {before:.4f}, deblurred {after:.4f}")
assert after < 0.7 * before

figure, panels = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for panel, image, title in zip(panels, (sharp[12], seen[12], found[0]), ("sharp", "seen", "deblurred"), strict=False):
    panel.imshow(image.view(side, side), cmap="gray", vmin=0, vmax=1)
    panel.set(title=title, xticks=[], yticks=[])
panels[3].loglog(*zip(*path, strict=True), ".-")
panels[3].set(xlabel="smoothness", ylabel="squared error")
figure.savefig("your_own_solve.png", dpi=100)
