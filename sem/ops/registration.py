"""How a kernel becomes an operator of torch: one declaration, from which everything torch asks for is derived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Parameter

from sem.ops import kernels

_library = torch.library.Library("sem", "DEF")
_tags = [torch.Tag.pt2_compliant_tag, getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)]

_KEYS = ("cpu", "cuda", "xpu")
_OWN = (Tensor, Parameter)

Outputs = Tensor | tuple[Tensor, ...]


class Operator:
    """A kernel as an operator of torch.

    Calling it in eager mode costs the kernel and little more: nothing goes through torch's dispatcher while nobody
    traces, transforms or records. Else it is the custom operator ``torch.ops.sem.<name>`` with fake outputs, a rule for
    ``torch.vmap`` and, once :meth:`differentiate` has been told them, gradients, on every device by the same code.

    Args:
        schema: as torch writes it, without a namespace. Its names are those of the kernel's fields, inputs and outputs
            both; a single output is named too: ``(Tensor x) -> (Tensor out)``.
        empty: the outputs, not filled in, from the operator's arguments. What kernels do not touch is zeros.
        sizes: the kernel's other fields, from the operator's arguments.
        per_row: names of the inputs and outputs whose first dimension is rows that know nothing of each other, or of a
            batch; the kernel is then one call for a whole ``torch.vmap``.
        composed: what is run where there is no kernel, on a device or in a build, of the operator's signature; None: an
            error says there how to build it.
        private: how many of the last arguments are no fields of the kernel.
        check: looks at the arguments' values before the CPU's kernel does, where that is free.
    """

    def __init__(
        self,
        schema: str,
        *,
        empty: Callable[..., Outputs],
        sizes: Callable[..., dict[str, int]] = lambda *args: {},
        per_row: Sequence[str] = (),
        composed: Callable[..., Outputs] | None = None,
        private: int = 0,
        check: Callable[..., None] | None = None,
    ) -> None:
        self.name = schema[: schema.index("(")]
        _library.define(schema, tags=_tags)
        self.op = getattr(torch.ops.sem, self.name).default
        signature = self.op._schema
        self.arguments = [argument.name for argument in signature.arguments]
        self.returns = [output.name for output in signature.returns]
        self._fields = self.arguments[: len(self.arguments) - private]
        self._like = next(k for k, argument in enumerate(signature.arguments) if str(argument.type) == "Tensor")
        self._empty, self._sizes, self._composed, self._check = empty, sizes, composed, check
        self._row_arguments = [k for k, name in enumerate(self.arguments) if name in per_row]
        self._rows_alone = all(name in per_row for name in self.returns)
        self._recorded: Any = None
        self._transformed: Any = None
        for kind in _KEYS:
            _library.impl(self.name, self._run, kind.upper())
        torch.library.register_fake(f"sem::{self.name}", empty, lib=_library)
        torch.library.register_vmap(f"sem::{self.name}", self._vmap, lib=_library)

    def __call__(self, *args: Any) -> Any:
        if self._is_plain(args):
            return self._run(*args)
        if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
            return self.op(*args)
        if self._recorded is None:  # no gradients: the dispatcher knows all there is to know
            return self.op(*args)
        if torch._C._are_functorch_transforms_active():
            return self._transformed.apply(*args)
        if all(type(arg) in _OWN for arg in args if isinstance(arg, Tensor)) and args[self._like].device.type in _KEYS:
            return self._recorded.apply(*args)
        return self.op(*args)  # the meta device, a subclass with ideas of its own

    def first(self, *args: Any) -> Tensor:
        """The first output alone; where nobody records it, kernels need not write the others."""
        if not self._is_plain(args) or not kernels.on_cpu(args[self._like]):
            return self(*args)[0]
        output = torch.empty_like(args[self._like])
        self._call(args, (output,))
        return output

    def _is_plain(self, args: Sequence[Any]) -> bool:
        """Whether the kernel is all that there is to do: nothing traces, transforms or records."""
        if (
            torch.compiler.is_compiling()
            or torch._C._are_functorch_transforms_active()
            or torch._C._len_torch_dispatch_stack()
            or torch.autograd.forward_ad._current_level >= 0
        ):
            return False
        records = torch.is_grad_enabled()
        for arg in args:
            kind = type(arg)
            if kind is Tensor or kind is Parameter:
                if records and arg.requires_grad:
                    return False
            elif isinstance(arg, Tensor):
                return False
        return args[self._like].is_cpu or args[self._like].device.type in _KEYS

    def differentiate(
        self, setup_context: Callable[[Any, tuple[Any, ...], Any], None], backward: Callable[..., Any]
    ) -> None:
        """Give the operator gradients, in the form of ``torch.autograd.Function`` with a ``setup_context``."""
        run, op = self._run, self.op

        # Without setup_context, whose calls inspect a signature each time; torch.func's transforms insist on it.
        class Recorded(Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                output = run(*args)
                setup_context(ctx, args, output)
                return output

        class Transformed(Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(*args: Any) -> Any:
                return op(*args)

        Recorded.backward = Transformed.backward = staticmethod(backward)  # type: ignore[method-assign,assignment]
        Transformed.setup_context = staticmethod(setup_context)  # type: ignore[method-assign,assignment]
        Recorded.__name__ = Transformed.__name__ = self.name
        self._recorded, self._transformed = Recorded, Transformed
        torch.library.register_autograd(f"sem::{self.name}", backward, setup_context=setup_context, lib=_library)

    def first_order(self, name: str, twin: str | None = None) -> None:
        """For a backward kernel: transparent to every transformation, and an error, not a missing term, when its
        results are differentiated again; it names the operator's twin, ``sem.ops.<twin>``."""
        message = second_derivative(name, twin)

        def backward(ctx: Any, *grads: Tensor) -> Any:
            raise NotImplementedError(message)

        self.differentiate(lambda ctx, inputs, output: None, backward)

    def _run(self, *args: Any) -> Any:
        like = args[self._like]
        if self._composed is not None and not kernels.has(self.name, like):
            return self._composed(*args)
        if self._check is not None and kernels.on_cpu(like):
            self._check(*args)
        outputs = self._empty(*args)
        self._call(args, (outputs,) if isinstance(outputs, Tensor) else outputs)
        return outputs

    def _call(self, args: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        fields: dict[str, Any] = self._sizes(*args)
        fields.update(zip(self._fields, args, strict=False))  # but private arguments
        fields.update(zip(self.returns, outputs, strict=False))  # but those not wanted
        kernels.call(self.name, args[self._like], fields)

    def _vmap(self, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        # a list of numbers has a list of dimensions, none of which means anything
        dims = [dim if isinstance(arg, Tensor) else None for arg, dim in zip(args, in_dims, strict=True)]
        batched = [k for k, dim in enumerate(dims) if dim is not None]
        if self._rows_alone and all(k in self._row_arguments for k in batched):
            outputs = self._folded(info.batch_size, dims, args)
        else:
            outputs = self._each(info.batch_size, dims, args)
        return outputs, 0 if isinstance(outputs, Tensor) else tuple(0 for _ in outputs)

    def _folded(self, batch: int, dims: Sequence[int | None], args: Sequence[Any]) -> Any:
        folded, rows = list(args), 0
        for k in self._row_arguments:
            dim = dims[k]
            moved = args[k].expand(batch, *args[k].shape) if dim is None else args[k].movedim(dim, 0)
            rows = rows or moved.shape[1]
            folded[k] = moved.flatten(0, 1).contiguous()
        outputs = self.op(*folded)
        if isinstance(outputs, Tensor):
            return outputs.unflatten(0, (batch, rows))
        return tuple(output.unflatten(0, (batch, rows)) for output in outputs)

    def _each(self, batch: int, dims: Sequence[int | None], args: Sequence[Any]) -> Any:
        apart = [arg if dim is None else arg.movedim(dim, 0) for arg, dim in zip(args, dims, strict=True)]
        if batch == 0:
            sample = [a if dim is None else a.new_zeros(a.shape[1:]) for a, dim in zip(apart, dims, strict=True)]
            outputs = self._empty(*sample)
            none = (outputs,) if isinstance(outputs, Tensor) else outputs
            stacked = tuple(output.new_empty(0, *output.shape) for output in none)
            return stacked[0] if isinstance(outputs, Tensor) else stacked
        results = [
            self.op(*(a if dim is None else a[b].contiguous() for a, dim in zip(apart, dims, strict=True)))
            for b in range(batch)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def second_derivative(name: str, twin: str | None = None) -> str:
    """The error of one; ``sem.ops.<twin>`` has it, the ``reference`` of the same name unless given."""
    has = f"sem.ops.{twin or f'reference.{name}'} has second derivatives and higher ones"
    return f"{name}: only first derivatives are implemented; {has}"


def empty_solved(rhs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs of a solve per row of ``rhs``: solution, status, iterations, residual."""
    return torch.empty_like(rhs), *empty_report(rhs)


def empty_report(rhs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of them, status, iterations and residual."""
    rows = rhs.shape[0]
    status = rhs.new_empty(rows, dtype=torch.int32)
    return status, torch.empty_like(status), rhs.new_empty(rows)


def only_needed(ctx: Any, grads: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """``grads`` to the operator's first arguments, None where nobody asked, and None for all that follow them."""
    asked = ctx.needs_input_grad
    needed = (grad if need else None for grad, need in zip(grads, asked, strict=False))
    return (*needed, *(None,) * (len(asked) - len(grads)))
