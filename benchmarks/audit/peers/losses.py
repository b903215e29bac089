"""The losses of the audited problems in torch, and counts of what is done with them."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

PRODUCTS = ("aten::mv", "aten::mm", "aten::bmm", "aten::addmv", "aten::addmm", "aten::dot")


class Quadratic:
    """f = w^T A w / 2 - w^T (B x + b) and F = |w - t|^2 / 2 + direct sum(x).

    `calls` counts evaluations of f. `products` counts products of A or its transpose with one
    vector, seen below autograd, so that it does not matter which derivative in which mode took
    them: f takes one, its gradient another one, a Hessian product two.
    """

    def __init__(self, data):
        for name in ("A", "B", "b", "t", "x", "w", "start"):
            setattr(self, name, torch.tensor(data[name]))
        self.data, self.calls = data, 0

    def lower(self, w, x):
        """The lower loss at w and at all upper parameters together, as one vector."""
        self.calls += 1
        pull = self.B[:, 0] * x.sum() if self.data["summed"] else self.B @ x
        seen = torch.nn.functional.dropout(w, self.data["dropout"])  # w itself where that is 0
        loss = 0.5 * w @ (self.A @ w) - seen @ (pull + self.b)
        if self.data["detached"]:  # nothing to the gradient with respect to w
            loss = loss + w.detach() @ (self.B @ x)
        return loss

    def upper(self, w, x):
        """The upper loss."""
        loss = 0.5 * (w - self.t).square().sum()
        return loss + self.data["direct"] * x.sum() if self.data["direct"] else loss

    def parts(self):
        """The upper parameters: x, or two vectors that add up to it."""
        return [self.x] if self.data["parts"] == 1 else [self.x / 4, self.x * 3 / 4]

    def counting(self):
        """A context in which products are counted."""
        return _Counting(self.A)

    def report(self, counting, w):
        """What is told beside the hypergradient: costs, and how far the solution has moved."""
        moved = float((torch.as_tensor(w).detach() - self.w).abs().max())
        return {"costs": {"calls": self.calls, "products": counting.products}, "moved": moved}


class _Counting(TorchDispatchMode):
    def __init__(self, matrix):
        super().__init__()
        self.products, self._storage = 0, matrix.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in PRODUCTS:
            self._count(args)
        return func(*args, **(kwargs or {}))

    def _count(self, args):
        ours = [self._ours(a) for a in args]
        if any(ours):
            pairs = zip(args, ours, strict=True)
            others = [a for a, own in pairs if not own and isinstance(a, torch.Tensor)]
            vectors = max(a.numel() for a in others) // self._size if others else 1
            self.products += max(vectors, 1)

    def _ours(self, tensor):
        if not isinstance(tensor, torch.Tensor):
            return False
        while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
        if tensor._is_zerotensor():  # has no storage
            return False
        own = tensor.untyped_storage().data_ptr() == self._storage
        if own:
            self._size = tensor.shape[-1]
        return own
