"""What every operator's registration with torch shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def register_row_vmap(op: Any, row_args: Sequence[int], per_row_outputs: Sequence[bool]) -> None:
    """Teach ``torch.vmap`` an operator whose rows (first dimension) are independent.

    Where only arguments in ``row_args`` are batched and every output is per row, the batch is folded into the rows: one
    call. Otherwise (batched weights, or an output summed over rows) the operator is called once per batch entry.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        # a list of numbers has a list of dimensions, none of which means anything
        in_dims = tuple(dim if isinstance(arg, Tensor) else None for arg, dim in zip(args, in_dims, strict=True))
        batched = [k for k, dim in enumerate(in_dims) if dim is not None]
        if all(per_row_outputs) and all(k in row_args for k in batched):
            outputs = _call_folded(op, info.batch_size, in_dims, args, row_args)
        else:
            outputs = _call_each(op, info.batch_size, in_dims, args)
        return outputs, 0 if isinstance(outputs, Tensor) else tuple(0 for _ in outputs)

    op.register_vmap(rule)


def _call_folded(
    op: Callable[..., Any], batch: int, in_dims: Sequence[int | None], args: Sequence[Any], row_args: Sequence[int]
) -> Any:
    folded = list(args)
    for k in row_args:
        moved = args[k].expand(batch, *args[k].shape) if in_dims[k] is None else args[k].movedim(in_dims[k], 0)
        folded[k] = moved.flatten(0, 1).contiguous()
    outputs = op(*folded)
    if isinstance(outputs, Tensor):
        return outputs.unflatten(0, (batch, -1))
    return tuple(output.unflatten(0, (batch, -1)) for output in outputs)


def _call_each(op: Callable[..., Any], batch: int, in_dims: Sequence[int | None], args: Sequence[Any]) -> Any:
    results = []
    for b in range(batch):
        chosen = [
            arg if dim is None else arg.movedim(dim, 0)[b].contiguous() for arg, dim in zip(args, in_dims, strict=True)
        ]
        results.append(op(*chosen))
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def first_order(op: Any, name: str, twins: str = "reference") -> Callable[..., Any]:
    """A backward kernel as ``backward`` should call it: transparent to ``torch.func.grad``, ``vmap`` and ``compile``,
    and an error, not a missing term, when its results are differentiated again; it names the operator's twin, which
    stands in ``sem.ops.<twins>``."""

    class FirstOrder(Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: Any) -> Any:
            return op(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            raise NotImplementedError(
                f"{name}: only first derivatives are implemented; sem.ops.{twins}.{name} has second "
                "derivatives and higher ones"
            )

    def call(*args: Any) -> Any:
        return op(*args) if torch.compiler.is_dynamo_compiling() else FirstOrder.apply(*args)

    return call


def empty_solved(rhs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs of a solve per row of ``rhs``: solution, status, iterations, residual."""
    rows = rhs.shape[0]
    status = rhs.new_empty(rows, dtype=torch.int32)
    return torch.empty_like(rhs), status, torch.empty_like(status), rhs.new_empty(rows)
