"""Baselines: counting models, the SASRec family, control tokenizers, and the code granularity of TIGER.

`counting` fits the counting baselines. Learned baselines are variations of the core's sequence model. Control
tokenizers give IDs without training stage 1.
"""
