"""From files to a dataset: reading and checking bundles, encoding texts and pictures, downloads, planted data.

A bundle is a folder of parquet files; `reading` makes a dataset of it and `sources` knows the registered ones.
Nothing here trains or ranks.
"""
