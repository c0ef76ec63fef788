"""What the method is compared with: counting baselines, SASRec's family, control tokenizers, TIGER's granularity.

Counting baselines are fitted by `counting`; learned rivals are variations of the core's sequence model. Control
tokenizers give IDs that no stage 1 learned.
"""
