"""Commands that show notebooks: `lab`, `inspector`, `book`; and `completion` for shells."""

from typing import Annotated, Literal

from cyclopts import Parameter

from bbqrec_lab.cli.app import app
from bbqrec_lab.cli.options import RUN_OPTIONS, TRAIN_OPTIONS, RunOptions, TrainOptions, examples
from bbqrec_lab.terminal import tell


@app.command(help_epilogue=examples("bbqrec lab"))
def lab() -> int:
    """Open copies of the notebooks, in the folder lab, in JupyterLab, on this machine only."""
    from bbqrec_lab.suite import lab as suite

    return suite.open_lab()


@app.command(
    help_epilogue=examples(
        "bbqrec inspector", "bbqrec inspector --dataset planted --preset smoke --notebook 04 --port 9000"
    )
)
def inspector(
    *,
    options: TrainOptions = TRAIN_OPTIONS,
    port: Annotated[int, Parameter(help="Port of the page.")] = 8866,
    notebook: Annotated[str, Parameter(help="Notebook to serve, such as 02 or 04.")] = "07",
    theme: Annotated[Literal["light", "dark"], Parameter(help="Of the page and its maps.")] = "light",
) -> int:
    """Serve the codebook inspector as a web page, on this machine only."""
    from bbqrec_lab.suite import web_page

    options.open_store()
    return web_page.serve_page(notebook, options.dataset, options.preset, options.out, port, options.overrides, theme)


@app.command(help_epilogue=examples("bbqrec book", "bbqrec book --dataset planted --preset smoke"))
def book(*, options: RunOptions = RUN_OPTIONS) -> int:
    """Build an offline web site of the executed notebooks."""
    from bbqrec_lab.suite import book as suite

    tell(suite.build(options.dataset, options.preset, options.out))
    return 0


@app.command(help_epilogue=examples("bbqrec completion", "bbqrec completion zsh --install"))
def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell"] | None, Parameter(help="Default: the shell in use.")
    ] = None,
    /,
    *,
    install: Annotated[bool, Parameter(help="Install it for this user instead.", show_default=False)] = False,
) -> int:
    """Print the script that completes commands and options in a shell."""
    print(app.install_completion(shell=shell) if install else app.generate_completion(shell=shell))
    return 0
