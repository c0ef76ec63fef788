"""Experiments: the variants, how one is trained and ranked, and how variants are compared.

`presets` holds the settings of a run, `variants` lists the table rows and their overrides. `runs` computes and stores
a row; `statistics` and `tables` turn rows into intervals and tables.
"""
