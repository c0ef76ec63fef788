"""Semantic IDs where no sequence is read: the rating of an item, the rest of a basket, the item of a query.

Each module asks one question of the same IDs, beside strong simple rivals; `code_tables` makes the IDs and what a model
reads of them. `answers` writes the sentences, `figures` draws.
"""
