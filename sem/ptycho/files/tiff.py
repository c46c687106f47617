"""Objects as TIFF, which ImageJ and napari open with their pixel's size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from sem.extras import how_to_install
from sem.files import replacing
from sem.ptycho.files.contents import Geometry


def write_tiff(path: str | os.PathLike[str], object: Tensor, geometry: Geometry | None = None) -> None:
    """Amplitude and phase of complex ``[H, W]`` as two float32 pages; the file is complete or not there.

    Raises:
        OSError: the file could not be written.
        ImportError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError:
        raise ImportError(f"a .tif needs tifffile: {how_to_install('ptycho')}") from None

    pages = np.stack([object.abs().numpy(), object.angle().numpy()]).astype(np.float32)
    density, unit = None, {}
    if geometry is not None:  # pixels per micrometre, as ImageJ has them
        density, unit = (1e-6 / geometry.object_pixel,) * 2, {"unit": "um"}
    with replacing(Path(path)) as file:
        tifffile.imwrite(file, pages, imagej=True, resolution=density, metadata={"axes": "CYX", **unit})
