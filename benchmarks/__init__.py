"""Benchmarks of the core against its peers: `make bench`."""
