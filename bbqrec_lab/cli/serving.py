"""A finished run as a web service: `serve`."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bbqrec_lab.cli.app import app
from bbqrec_lab.cli.options import RUN_CHOICE, RunChoice, examples
from bbqrec_lab.terminal import say

TOKEN = "BBQREC_TOKEN"


@app.command(
    help_epilogue=examples(
        "bbqrec serve --run DIR",
        "bbqrec serve --dataset my-shop --variant bbqrec --port 9000",
        f"{TOKEN}=... bbqrec serve --run DIR --host 0.0.0.0",
    )
)
def serve(
    *,
    where: RunChoice = RUN_CHOICE,
    host: Annotated[str, Parameter(help="Address to listen on; by default this machine only.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.")] = 8700,
    token: Annotated[
        str, Parameter(help=f"Secret that callers send; needed for other addresses; default: ${TOKEN}.")
    ] = "",
    rate: Annotated[float, Parameter(help="Requests per second of one address; 0 is no limit.")] = 1000.0,
    state: Annotated[
        Path | None, Parameter(help="SQLite file of events and new items; default: beside the run.")
    ] = None,
    beam: Annotated[
        int, Parameter(help="Width of a compiled beam search, for variant generation; 0 scores all items.")
    ] = 0,
) -> int:
    """Serve a finished run: events and new items in, recommendations out."""
    from bbqrec_lab.serving import web

    secret = token or os.environ.get(TOKEN, "")
    try:
        web.serve(where.find(), host=host, port=port, token=secret, per_second=rate, state=state, beam=beam)
    except KeyboardInterrupt:
        say("bbqrec serve: stopped; all acknowledged events and items are kept")
    return 0
