"""Studies of speed: latency of requests, growth of cost with size, power laws, a compiled beam search.

Compared measurements are interleaved, see `bbqrec_lab.measure`. `plots` draws them.
"""
