"""What the engine costs: the benchmarks that `mlo bench` runs."""
