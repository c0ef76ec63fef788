"""Run the notebooks: execution, the full reproduction, one notebook as a web page, and the book of all notebooks.

`process_pool` runs work in processes and `progress` displays it. `make reproduce` calls `reproduce`.
"""
