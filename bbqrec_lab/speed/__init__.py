"""How long things take and how costs grow: latency of requests, power laws, a compiled beam search.

Measurements run side by side in turns, see `bbqrec_lab.measure`. `plots` draws them.
"""
