"""Stage 2: histories of items become a ranking of the next one.

`sequence_model` is the transformer and the head that emits codes, `similarity_bias` the reweighting of its attention,
`code_embeddings` the vectors of codes. `decoding` searches the tree of IDs; `fit` trains and ranks.
"""
