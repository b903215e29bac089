"""The benchmark `bilevel-quadratic`: what a hypergradient costs, and what it is worth.

The problem and its metrics follow the simulated quadratics of benchopt's `benchmark_bilevel`
(Dagréou, Ablin, Vaiter, Moreau, NeurIPS 2022), written anew.
"""
