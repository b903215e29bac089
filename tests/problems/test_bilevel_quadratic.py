"""The bilevel quadratic: its closed forms, its metrics, and the work that is counted on it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian

import mlo
from mlo.errors import ConfigurationError
from problems.benchmarks.bilevel_quadratic.memory import peak_bytes
from problems.benchmarks.bilevel_quadratic.problem import Spectra, draw
from problems.benchmarks.bilevel_quadratic.program import Batches, build, present
from problems.benchmarks.bilevel_quadratic.samples import spectrum
from problems.benchmarks.bilevel_quadratic.work import Work

SMALL = Spectra(mu_inner=0.02, dim_inner=7, dim_outer=5, n_samples_inner=19, n_samples_outer=23)


def everything(samples):
    """q(z, x) of all samples, with the matrices of every one written out."""
    H = torch.einsum("ni,nj->nij", samples.a, samples.a)
    K = torch.einsum("ni,nj->nij", samples.b, samples.b)
    C = torch.einsum("ni,nj->nij", samples.left, samples.right)

    def value(z, x):
        each = 0.5 * torch.einsum("i,nij,j->n", z, H, z) + 0.5 * torch.einsum("i,nij,j->n", x, K, x)
        each = each + torch.einsum("i,nij,j->n", x, C, z) + samples.c @ z + samples.d @ x
        return each.sum() / len(each)

    return value


def slopes(function, z, x):
    """Its derivatives with respect to z and x, by plain autograd."""
    at = (z.clone().requires_grad_(), x.clone().requires_grad_())
    return torch.autograd.grad(function(*at), at)


def resolved(quadratic, x):
    """z*(x) and h(x) by Newton's method on the samples, without the closed forms."""
    g, z = everything(quadratic.inner), torch.zeros(7)
    for _ in range(2):
        slope, (H,) = slopes(g, z, x)[0], hessian(lambda z: g(z, x), (z,))[0]
        z = z - torch.linalg.solve(H, slope)
    return z, everything(quadratic.outer)(z, x)


@pytest.fixture(scope="module")
def small():
    torch.set_default_dtype(torch.float64)
    return draw(SMALL, seed=3, convex=True)


def test_the_hypergradient_is_the_difference_quotient_of_the_resolved_program(small):
    x = small.start[1]
    z, value = resolved(small, x)
    torch.testing.assert_close(small.solution(x), z, rtol=1e-10, atol=1e-10)
    assert float(small.value_function(x)) == pytest.approx(float(value), rel=1e-10)
    steps = 0.1 * torch.eye(5)  # h is quadratic: a central difference of any width is exact
    differences = [(resolved(small, x + e)[1] - resolved(small, x - e)[1]) / 0.2 for e in steps]
    torch.testing.assert_close(
        small.hypergradient(x), torch.stack(differences), rtol=1e-8, atol=1e-8
    )


def test_the_hessian_and_the_jacobian_are_differences_of_the_first_order(small):
    x = small.start[1]
    for e, row, column in zip(torch.eye(5), small.hessian(), small.jacobian.T, strict=True):
        slope = small.hypergradient(x + e) - small.hypergradient(x - e)
        torch.testing.assert_close(row, slope / 2, rtol=1e-8, atol=1e-8)
        moved = resolved(small, x + e)[0] - resolved(small, x - e)[0]
        torch.testing.assert_close(column, moved / 2, rtol=1e-8, atol=1e-8)


def test_metrics_are_those_of_numpy(small):
    z, x = (t.numpy() for t in small.start)
    H = np.mean([np.outer(a, a) for a in small.inner.a.numpy()], axis=0)
    C = np.mean([np.outer(*v) for v in zip(small.inner.left, small.inner.right, strict=True)], 0)
    solved = -np.linalg.lstsq(H, C.T @ x + small.inner.c.numpy().mean(0), rcond=None)[0]
    f, at = everything(small.outer), (torch.from_numpy(solved), torch.from_numpy(x))
    f_z, f_x = (slope.numpy() for slope in slopes(f, *at))
    gradient = f_x - C @ np.linalg.solve(H, f_z)
    found = small.metrics(*small.start)
    assert found == pytest.approx(
        {
            "value": float(gradient @ gradient),
            "value_func": float(f(*at)),
            "inner_distance": float(((z - solved) ** 2).sum()),
        },
        rel=1e-8,
    )


def test_the_minimum_is_where_newtons_method_on_h_ends(small):
    x = small.start[1]
    x = x - torch.linalg.solve(small.hessian(), small.hypergradient(x))
    assert float(resolved(small, x)[1]) == pytest.approx(float(small.minimum()), rel=1e-9)
    for away in torch.randn(5, 5):
        assert small.value_function(x + away) > small.minimum()


@pytest.mark.parametrize("condition", [10, 100, 1000])
def test_spectra_are_exact(condition):
    sizes = {"n_samples_inner": 64, "n_samples_outer": 80}
    spectra = Spectra(mu_inner=1 / condition, dim_inner=9, dim_outer=12, **sizes)
    drawn = draw(spectra, seed=condition)
    for whole in (drawn.g, drawn.f):
        inner, outer = torch.linalg.eigvalsh(whole.H), torch.linalg.eigvalsh(whole.K)
        cross = torch.linalg.svdvals(whole.C).flip(0)
        torch.testing.assert_close(inner, spectrum(1 / condition, 1.0, 9), rtol=1e-9, atol=0)
        torch.testing.assert_close(outer[1:], spectrum(1 / condition, 1.0, 11), rtol=1e-9, atol=0)
        assert outer[0].abs() < 1e-14
        torch.testing.assert_close(cross, spectrum(1 / condition, 0.1, 9), rtol=1e-9, atol=0)


def test_seeds_repeat_and_differ():
    first, again, other = (draw(SMALL, seed) for seed in (0, 0, 1))
    assert torch.equal(first.inner.a, again.inner.a)
    assert not torch.allclose(first.inner.a, other.inner.a)
    assert not torch.allclose(first.g.H, first.f.H)


def test_a_value_function_without_a_minimum_is_drawn_again_or_refused():
    never = Spectra(mu_inner=1e-3, n_samples_inner=100, n_samples_outer=100)
    with pytest.raises(ConfigurationError, match="20 draws"):
        draw(never, 0, convex=True)
    with pytest.raises(ConfigurationError, match="strictly convex"):
        draw(never, 0).minimum()
    lowest = [float(torch.linalg.eigvalsh(draw(SMALL, s).hessian())[0]) for s in range(20)]
    rejected = lowest.index(min(lowest))
    assert lowest[rejected] < 0
    again = draw(SMALL, rejected, convex=True)
    assert float(torch.linalg.eigvalsh(again.hessian())[0]) >= 1e-12


def test_too_few_samples_are_refused():
    with pytest.raises(ConfigurationError, match=r"n_samples_outer=.*at least 12 samples.*found 8"):
        Spectra(dim_inner=3, dim_outer=12, n_samples_inner=12, n_samples_outer=8)


def test_the_batches_of_an_epoch_are_the_whole_function(small):
    batches = Batches(19, 4, torch.Generator().manual_seed(0))
    epoch, other = list(batches), list(batches)
    assert len(epoch) == len(batches) == 5
    assert sorted(torch.cat(epoch).tolist()) == list(range(19))
    assert torch.cat(epoch).tolist() != torch.cat(other).tolist()
    z, x = small.start
    total = sum(len(rows) * small.inner.value(z, x, rows) for rows in epoch) / 19
    torch.testing.assert_close(total, small.g.value(z, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(total, everything(small.inner)(z, x), rtol=1e-12, atol=1e-12)


def test_minibatches_give_the_hypergradient_of_the_program_of_their_samples(small):
    engine = build(small, mlo.Dense(), small.start, batch=8, seed=5, inner_rate=0.0)
    engine.step()
    rows = {
        name: next(iter(Batches(count, 8, torch.Generator().manual_seed(5 + k))))
        for k, (name, count) in enumerate({"inner": 19, "outer": 23}.items())
    }
    z, x = small.start
    assert torch.equal(present(engine)[0], z)
    g = lambda z, x: small.inner.value(z, x, rows["inner"])  # noqa: E731
    f = lambda z, x: small.outer.value(z, x, rows["outer"])  # noqa: E731
    (H, _), (C, _) = hessian(g, (z, x))
    f_z, f_x = slopes(f, z, x)
    expected = f_x - C @ torch.linalg.solve(H, f_z)
    found = engine.hypergradient("outer")["x"]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


# Of one hypergradient at a fixed point, on 7 inner variables, by docs/maths.md: the upper gradient,
# and either a trial move or the graph that products share; then the products.
COUNTS = {
    "direct": (mlo.Direct(), 1, 0),
    "one step": (mlo.OneStep(), 2, 1),
    "central difference": (mlo.FiniteDifference(), 4, 0),
    "forward difference": (mlo.FiniteDifference(scheme="forward"), 3, 0),
    "Neumann": (mlo.Neumann(terms=6), 2, 6),
    "conjugate gradients": (mlo.ConjugateGradient(iterations=4, tolerance=0.0), 2, 5),
    "minimal residuals": (mlo.Minres(iterations=4, tolerance=0.0), 2, 5),
    "Nystrom": (mlo.Nystrom(rank=7), 2, 8),
    "Neumann, bounded": (mlo.Neumann(terms=6, alpha="auto", power_iterations=4), 2, 10),
    "dense": (mlo.Dense(), 2, 8),
    "SAMA": (mlo.Sama(), 4, 0),
}


@pytest.mark.parametrize("case", COUNTS)
def test_work_is_what_autograd_is_asked_for(small, case, monkeypatch):
    method, gradients, products = COUNTS[case]
    asked = {"gradients": 0, "products": 0}
    original = torch.autograd.grad

    def counting(outputs, *others, **settings):
        scalar = all(output.dim() == 0 for output in outputs)
        asked["gradients" if scalar else "products"] += 1
        return original(outputs, *others, **settings)

    monkeypatch.setattr(torch.autograd, "grad", counting)
    work = Work()
    engine = build(small, method, small.start, work=work)
    assert work == Work()
    engine.hypergradient("outer")
    assert dataclasses.asdict(work) == {"gradients": gradients, "products": products} == asked
    assert work.evaluations == gradients + 2 * products


@pytest.mark.parametrize(
    ("method", "gradients"),
    [(mlo.Unrolled(), 3), (mlo.Unrolled(recompute=False), 2), (mlo.ForwardMode(), 3)],
)
def test_a_move_on_trial_is_differentiated_by_one_product(small, method, gradients):
    work = Work()
    build(small, method, small.start, work=work).hypergradient("outer")
    assert work == Work(gradients=gradients, products=1)


@pytest.mark.parametrize("recompute", [True, False])
def test_updates_of_a_tick_cost_what_the_documents_say(small, recompute):
    """Five updates and one move above: the graphs of all are kept, or made again."""
    work = Work()
    method = mlo.Unrolled(recompute=recompute)
    build(small, method, small.start, repeat=5, work=work).step()
    assert work == Work(gradients=5 + 1 + 5 * recompute, products=5)


def test_tangents_cost_a_product_for_each_upper_number_and_one_more(small):
    work, size = Work(), len(small.start[1])
    build(small, mlo.ForwardMode(), small.start, repeat=3, work=work).step()
    assert work == Work(gradients=2 * 3 + 1, products=3 * (1 + size))


def test_counting_changes_no_number(small):
    for method, *_ in COUNTS.values():
        plain = build(small, method, small.start).hypergradient("outer")["x"]
        watched = build(small, method, small.start, work=Work()).hypergradient("outer")["x"]
        torch.testing.assert_close(watched, plain, rtol=1e-13, atol=1e-13)


def test_peak_memory_is_that_of_what_is_alive_at_once():
    outside = torch.ones(1000)

    def function():
        kept = [outside + k for k in range(3)]  # 3000 numbers
        del kept[0]
        more = torch.cat([kept[0], kept[1]])  # 2000 and 2000: the most
        view = more[:10].view(2, 5)  # no memory of its own
        del kept, more
        return view + outside[:10].view(2, 5)

    assert peak_bytes(function) == 8 * 4000
