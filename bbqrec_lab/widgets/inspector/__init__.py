"""The codebook inspector: a map of items, a code chosen on it, and everything known about that code.

`atlas` gathers what is shown, `views` draws it, `widget` connects it with controls. Nothing here trains.
"""
