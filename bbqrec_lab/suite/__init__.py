"""The notebooks as jobs: executing them, reproducing all rows, the web page of one and the book of all.

`process_pool` runs work in processes and `progress` shows it. `reproduce` is what `make reproduce` calls.
"""
