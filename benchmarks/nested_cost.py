"""What one exact hypergradient of a truly nested three-level program costs, and by which route.

    python benchmarks/nested_cost.py [--repeats 9] [--out benchmarks/results/nested_cost.json]

The program learns on handwritten digits: a softmax regression with weighted examples below, the
weights in the middle (they answer for its loss on other images), and a penalty for each pixel and
the strength of the weights' own penalty above. The engine's route, differentiating its solves, is
compared with the explicit one written by hand: a tangent solve, a product with the Hessian of the
Lagrangian and an adjoint solve for every product of the middle problem. Both use conjugate
gradients to the same tolerance, run in turn, on one thread, in float64.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor

import mlo
from mlo.condition import Condition
from mlo.versions import environment

TOLERANCE = 1e-9
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
        losses = {
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


def conjugate_gradients(product: Callable[[Tensor], Tensor], v: Tensor, count: list[int]) -> Tensor:
    """Plain conjugate gradients; appends the number of products."""
    u, r = torch.zeros_like(v), v
    p, rho, stop = r, r.square().sum(), (TOLERANCE * v.norm()) ** 2
    taken = 0
    while rho > stop and taken < 500:
        q = product(p)
        step = rho / (p * q).sum()
        u, r = u + step * p, r - step * q
        rho, before = r.square().sum(), rho
        p = r + rho / before * p
        taken += 1
    count.append(taken)
    return u


def by_hand(program: Program) -> tuple[Tensor, int]:
    """The explicit route; returns the hypergradient and the products with the net's Hessian."""
    z, y, x = (t.clone().requires_grad_() for t in program.point.values())
    g = grad(program.net_loss(z, y, x), (z, y, x), create_graph=True)
    count: list[int] = []

    def solve(v: Tensor) -> Tensor:
        return conjugate_gradients(lambda q: grad(g[0], z, q, retain_graph=True)[0], v, count)

    def pulled(s: Tensor) -> tuple[Tensor, Tensor]:
        return grad(g[0], (y, x), s, retain_graph=True)

    middle = program.weights_loss(y, z, x)
    p = solve(grad(middle, z, retain_graph=True)[0])
    lagrangian = middle - (p * g[0]).sum()
    slope = grad(lagrangian, (z, y), create_graph=True)

    def total(u: Tensor) -> tuple[Tensor, Tensor]:
        tangent = solve(-grad(g[1], z, u, retain_graph=True)[0])
        rz, ry, rx = grad(slope, (z, y, x), (tangent, u), retain_graph=True)
        sy, sx = pulled(solve(rz))
        return ry - sy, rx - sx

    top = solve(grad(program.penalty_loss(z), z)[0])
    to_y, to_x = pulled(top)
    u = conjugate_gradients(lambda q: total(q)[0], -to_y, [])
    return -to_x - total(u)[1], sum(count)


def counted(engine: mlo.Engine) -> tuple[Tensor, int]:
    """The engine's hypergradient and its products with the net's Hessian."""
    taken = 0
    original = Condition._products

    def counting(self: Condition, *given: object) -> object:
        nonlocal taken
        taken += self.problem == "net"
        return original(self, *given)  # type: ignore[arg-type]

    Condition._products = counting  # type: ignore[method-assign, assignment]
    try:
        return engine.hypergradient("penalty")["w"], taken
    finally:
        Condition._products = original  # type: ignore[method-assign]


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="at least 2")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error("--repeats must be at least 2: the spread is shown too")
    torch.set_num_threads(1)
    program = Program()
    exact, products = by_hand(program)
    engines = {nested: program.engine(nested) for nested in ("exact", "projected", "partial")}
    rows = {"by hand": {"products": products, "difference": 0.0}}
    for nested, engine in engines.items():
        found, products = counted(engine)
        gap = float((found - exact).norm() / exact.norm())
        rows[nested] = {"products": products, "difference": gap}
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(options.repeats):
        times["by hand"].append(seconds(lambda: by_hand(program)))
        for nested, engine in engines.items():
            times[nested].append(seconds(lambda e=engine: e.hypergradient("penalty")))
    for name, row in rows.items():
        ratios = [a / b for a, b in zip(times[name], times["by hand"], strict=True)]
        row["seconds"] = statistics.median(times[name])
        row["ratio"] = statistics.median(ratios)
        row["quartiles"] = statistics.quantiles(ratios, n=4)[::2]
    _print(rows)
    if options.out is not None:
        found = {"environment": environment(), "repeats": options.repeats, "routes": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _print(rows: dict[str, dict]) -> None:
    table = Table("route", "products", "difference", "s", "ratio (quartiles)", box=box.SIMPLE_HEAD)
    for name, row in rows.items():
        low, high = row["quartiles"]
        table.add_row(
            name if name == "by hand" else f"nested={name}",
            str(row["products"]),
            f"{row['difference']:.1e}",
            f"{row['seconds']:.3f}",
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
