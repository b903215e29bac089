"""A truly nested program of three levels on handwritten digits, solved below and in the middle.

A softmax regression with weighted examples below, the weights in the middle (they answer for its
loss on other images), and a penalty for each pixel and the strength of the weights' own penalty
above.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

import mlo
from problems.benchmarks.conjugate import TOLERANCE, conjugate_gradients

TRAIN, VALID = 1000, 1400
"""Images below, and below and in the middle; the others judge the penalty."""

grad = torch.autograd.grad


class Program:
    """Losses, data, and a point at which the two lower problems are solved."""

    def __init__(self) -> None:
        pixels, labels = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
        self.x, self.labels = pixels.double() / 16, labels.long()
        self.point = {
            "net": torch.zeros(10, 64, dtype=torch.float64),
            "weights": torch.zeros(TRAIN, dtype=torch.float64),
            "penalty": torch.full((65,), -3.0, dtype=torch.float64),
        }
        self._solve()

    def net_loss(self, net: Tensor, weights: Tensor, penalty: Tensor) -> Tensor:
        """Weighted cross entropy, and a penalty for each pixel."""
        x, labels = self.x[:TRAIN], self.labels[:TRAIN]
        losses = F.cross_entropy(x @ net.T, labels, reduction="none")
        decay = (penalty[:64].exp() * net.square()).sum()
        return (torch.sigmoid(weights) * losses).mean() + decay

    def weights_loss(self, weights: Tensor, net: Tensor, penalty: Tensor) -> Tensor:
        """Cross entropy of the net on other images, and the penalty of the weights."""
        x, labels = self.x[TRAIN:VALID], self.labels[TRAIN:VALID]
        loss = F.cross_entropy(x @ net.T, labels)
        return loss + penalty[64].exp() * weights.square().mean()

    def penalty_loss(self, net: Tensor) -> Tensor:
        """Cross entropy of the net on the images that are left."""
        return F.cross_entropy(self.x[VALID:] @ net.T, self.labels[VALID:])

    def engine(self, nested: str) -> mlo.Engine:
        """The program in the library."""

        def key(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            return lambda *read: function(*(r["w"] for r in read))

        method = mlo.ConjugateGradient(iterations=500, tolerance=TOLERANCE)
        losses: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
            "net": (self.net_loss, ("net", "weights", "penalty")),
            "weights": (self.weights_loss, ("weights", "net", "penalty")),
            "penalty": (self.penalty_loss, ("net",)),
        }
        problems = [
            mlo.Problem(
                name,
                params={"w": self.point[name]},
                loss=key(loss),
                reads=reads,
                optimizer=lambda params: torch.optim.SGD(params, 0.1),
                hypergradient=method,
            )
            for name, (loss, reads) in losses.items()
        ]
        return mlo.Engine(problems, nested=nested)

    def _solve(self) -> None:
        """Minimize the weights' reduced loss by LBFGS, with the net solved at every point."""
        weights = self.point["weights"].clone().requires_grad_()
        optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

        def evaluate() -> Tensor:
            self.point["weights"] = weights.detach().clone()
            self._solve_net()
            gradient, loss = self.reduced_gradient()
            weights.grad = gradient
            return loss

        optimizer.step(evaluate)
        self.point["weights"] = weights.detach().clone()
        self._solve_net()

    def _solve_net(self) -> None:
        net = self.point["net"].clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [net],
            max_iter=500,
            tolerance_grad=1e-11,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def evaluate() -> Tensor:
            optimizer.zero_grad()
            loss = self.net_loss(net, self.point["weights"], self.point["penalty"])
            loss.backward()
            return loss.detach()

        optimizer.step(evaluate)
        self.point["net"] = net.detach().clone()

    def reduced_gradient(self) -> tuple[Tensor, Tensor]:
        """The total gradient of the weights' loss, and the loss."""
        z, y, x = (t.clone().requires_grad_() for t in self.point.values())
        loss = self.weights_loss(y, z, x)
        v, direct = grad(loss, (z, y))
        g = grad(self.net_loss(z, y, x), z, create_graph=True)[0]
        p = conjugate_gradients(lambda q: grad(g, z, q, retain_graph=True)[0], v, [])
        return direct - grad(g, y, p)[0], loss.detach()
