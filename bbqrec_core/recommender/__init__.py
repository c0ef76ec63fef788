"""Stage 2: rank the next item from a history of items.

`sequence_model` is the transformer, `similarity_bias` the reweighting of its attention, `code_embeddings` the vectors
of codes, `code_head` the head that generates codes. `decoding` searches the tree of IDs; `fit` trains and ranks.
"""
