"""Replay of events in the order of time: before each one a list is asked for, then it is learned from, by a policy.

`stream` has the events and the growing catalogue, `learners` and `counting` what learns from them, `rounds` the loop
and its stored results, `curves` the metrics over time, `studies` what the notebook shows.
New items enter the tree as in `bbqrec_lab.serving`.
"""
