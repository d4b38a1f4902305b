"""Benchmarks: what ggfast promises to be fast at, measured beside its peers. See bench/README.md."""
