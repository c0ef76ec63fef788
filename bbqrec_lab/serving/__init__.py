"""A finished run as a web service: events and new items come in, lists of recommendations go out.

`event_log` keeps what was acknowledged, `new_items` encodes an item by the run's encoders, `live_model` puts it into
the prefix tree, `service` ranks, `guard` refuses, and `web` has the routes. Nothing here trains stage 2, and only the
commands import this room.
"""
