"""From files to a dataset: reading and checking bundles, encoding texts and pictures, downloads, planted data.

A bundle is a folder of parquet files; `reading` turns it into a dataset, and `sources` lists the registered ones.
Nothing here trains or ranks.
"""
