"""Stage 1: features of items become semantic IDs that are tied to what users do.

`model` holds the encoders and the losses, `quantizer` the shared residual codebook. `fit` trains them and encodes the
catalogue; `semantic_ids` is what comes out, with the tree of the IDs that exist.
"""
