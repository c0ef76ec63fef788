"""Stage 2: rank the next item from a history of items.

`sequence_model` is the transformer, `similarity_bias` the reweighting of its attention, `score_bias` that of scores.
`code_embeddings` are the vectors of codes and the head that generates them. `decoding` searches the tree of IDs; `fit`
trains and ranks.
"""
