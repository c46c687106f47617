"""Reconstruct a complex object, and the beam that lit it, from a hundred overlapping diffraction patterns."""

import matplotlib.pyplot as plt
import torch

from sem.ptycho import PIE, aligned, disk_probe, floors, lines_object, raster_scan, scores, simulate

torch.set_num_threads(1)

truth = lines_object(90, 60, seed=1)
true_probe = disk_probe(32, 7.0, defocus=15.0)
scan, _ = simulate(truth, true_probe, raster_scan(10, 10, 4, jitter=1), photons=1e6, seed=2)

# One begins with what one knows of the beam: here its size, but not how far from its focus the object was.
state = PIE(scan, disk_probe(32, 8.0, defocus=8.0), alpha=0.2, seed=3).run(60)

height, width = state.object.shape
seen = truth[:height, :width]
found, floor = scores(state.object, seen, crop=16), floors(seen, crop=16)
print(f"similar: amplitudes {found.amp_ssim:.3f}, phases {found.phase_ssim:.3f} (constant: {floor.amp_ssim:.3f})")
assert found.amp_ssim > 0.95

inner = (slice(16, height - 16), slice(16, width - 16))
shown = aligned(state.object[inner], seen[inner])  # a factor and a slope of the phase leave all patterns alike
figure, panels = plt.subplots(2, 3, figsize=(9, 5.6), layout="constrained")
for row, name, image in ((0, "true", seen[inner]), (1, "found", shown)):
    panels[row, 0].imshow(image.abs(), cmap="gray")
    panels[row, 0].set(title=f"amplitude, {name}", xticks=[], yticks=[])
    panels[row, 1].imshow((image * image.mean().conj()).angle(), cmap="twilight", vmin=-1.5, vmax=1.5)
    panels[row, 1].set(title=f"phase, {name}", xticks=[], yticks=[])
panels[0, 2].imshow(state.probe.abs().square().sum(0), cmap="magma")
panels[0, 2].set(title="beam, found", xticks=[], yticks=[])
panels[1, 2].semilogy([report.loss for report in state.reports])
panels[1, 2].set(xlabel="sweep", ylabel="squared error of all patterns")
figure.savefig("reconstruct_an_object.png", dpi=100)
