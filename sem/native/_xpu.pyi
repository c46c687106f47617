"""Written by tools/native_stubs.py. Private to sem.ops."""

from sem.native._cpu import FIELDS as FIELDS
from sem.native._cpu import cayley_backward as cayley_backward
from sem.native._cpu import cayley_forward as cayley_forward
from sem.native._cpu import diffraction_backward as diffraction_backward
from sem.native._cpu import diffraction_forward as diffraction_forward
from sem.native._cpu import exit_waves_forward as exit_waves_forward
from sem.native._cpu import far_residual as far_residual
from sem.native._cpu import laplacian_cg_backward as laplacian_cg_backward
from sem.native._cpu import laplacian_cg_forward as laplacian_cg_forward
from sem.native._cpu import laplacian_matvec_forward as laplacian_matvec_forward
from sem.native._cpu import laplacian_matvec_weight_gradient as laplacian_matvec_weight_gradient
from sem.native._cpu import overlap_add as overlap_add
from sem.native._cpu import pit_backward as pit_backward
from sem.native._cpu import pit_forward as pit_forward
from sem.native._cpu import scan_backward as scan_backward
from sem.native._cpu import scan_forward as scan_forward
from sem.native._cpu import shift_ramp_backward as shift_ramp_backward
from sem.native._cpu import shift_ramp_forward as shift_ramp_forward
from sem.native._cpu import soliton_step_backward as soliton_step_backward
from sem.native._cpu import soliton_step_forward as soliton_step_forward

compilation: str
sycl_major: int

def set_sources(path: str) -> None: ...
def cpu_queue() -> int: ...
def wait(queue: int) -> None: ...
def sub_group_size(queue: int) -> int: ...
def set_limits(local_bytes: int, group_size: int, sub_group_size: int) -> None: ...
