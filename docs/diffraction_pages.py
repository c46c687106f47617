"""Writes diffraction_flags.md and draws the pictures of a refinement: ``python docs/diffraction_pages.py``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from sem.diffraction import experiment_from
from sem.diffraction.comparison import plot_difference
from sem.diffraction.flags import COVERED, FLAGS, Flag

PAGE = Path(__file__).with_name("diffraction_flags.md")
IMAGES = Path(__file__).with_name("images")

INTRODUCTION = """\
# Flags of `sem diffraction simulate`

<!-- Written by docs/diffraction_pages.py. -->

The flags of nanoBragg with its own spelling, units and defaults, so that a script runs with the program's name
replaced. Flags act in the order in which they stand: each one *sets* what the third column says, and of what several
flags set the last one counts. *Ignored* flags are accepted and do nothing, with a note; flags that
are *not covered*, and unknown ones, are errors. What behaves differently is on the page for those who
[come from nanoBragg](diffraction_from_nanobragg.md).
"""


def page() -> str:
    """The text of the page of flags."""
    parts = [INTRODUCTION]
    for group in dict.fromkeys(flag.group for flag in FLAGS):
        rows = "\n".join(_row(flag) for flag in FLAGS if flag.group == group)
        parts.append(f"## {group}\n\n| flag | values | sets | status | meaning |\n|---|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(flag: Flag) -> str:
    kind = flag.kind[0] or "text"
    values = " ".join(word for word in (str(flag.count), kind, flag.unit and f"({flag.unit})") if word)
    names = ", ".join(f"`{name}`" for name in flag.names)
    status = flag.status if flag.status == COVERED else f"*{flag.status}*"
    return f"| {names} | {values if flag.count else 'none'} | {_sets(flag)} | {status} | {flag.help} |"


def _sets(flag: Flag) -> str:
    """The settings that a flag sets, those with a fixed value with it."""
    fixed = flag.also if flag.count else {**dict.fromkeys(flag.sets, flag.constant), **flag.also}
    open_ones = (*(flag.sets if flag.count else ()), *filter(None, [flag.first]))
    parts = [name.replace("_", " ") for name in open_ones]
    parts += [f"{name.replace('_', ' ')} = {str(value).lower()}" for name, value in fixed.items()]
    return ", ".join(parts)


def refinement_pictures() -> Iterable[Path]:
    """Draw the image measured, the model's, and their difference, before and after the refinement of the page."""
    rest = "-default_F 100 -lambda 1.0 -N 5 -distance 100 -detpixels 128"
    truth = f"-cell 70 80 90 75 85 95 -misset -89.968546 -31.328953 177.753396 {rest}"
    start = f"-cell 70.21 79.76 90.27 75 85 95 -misset -89.848546 -31.428953 177.877396 {rest}"
    measured = experiment_from(truth.split()).simulator().detach()
    model = experiment_from(start.split()).simulator
    yield _draw(measured, model, "before")
    optimiser = torch.optim.LBFGS(
        model.refine("crystal.lengths", "crystal.misset"),
        max_iter=60,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-13,
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = (model() - measured).square().mean() / measured.square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    yield _draw(measured, model, "after")


def _draw(measured: torch.Tensor, model: torch.nn.Module, name: str) -> Path:
    path = IMAGES / f"diffraction_refinement_{name}.png"
    plot_difference(measured, model().detach(), path, ("measured", f"model {name} refinement"))
    return path


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for path in refinement_pictures():
        print(path)
