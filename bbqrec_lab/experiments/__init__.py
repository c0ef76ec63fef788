"""Rows of tables: which variants there are, how one is trained and ranked, and how rows are compared.

`presets` holds the settings of a run, `variants` the rows and what they change. `runs` makes a row and stores it;
`statistics` and `tables` turn rows into intervals and tables.
"""
