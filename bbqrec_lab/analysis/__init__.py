"""Analysis of trained tokenizers and recommenders: probes, neighbours, collisions, planted truth, explanations.

Functions take finished results and return numbers or tables; `sweeps` and parts of `collisions` train missing runs.
Nothing here draws.
"""
