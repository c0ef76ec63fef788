"""What trained tokenizers and recommenders are like: probes, neighbours, collisions, planted truth, explanations.

Every function takes finished results and returns numbers or tables. Nothing here draws.
"""
