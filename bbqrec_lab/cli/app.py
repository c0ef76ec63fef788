"""The `bbqrec` application; the other modules of this package add their commands to it."""

from cyclopts import App, Parameter

from bbqrec_lab.cli.options import examples


def _version() -> str:
    from importlib.metadata import version  # takes 15 ms, so not for help

    return version("bbqrec")


app = App(
    name="bbqrec",
    version=_version,
    help="Behaviour-bound semantic IDs for sequential recommendation.",
    help_format="plaintext",
    help_epilogue="Every command takes --debug, which shows tracebacks.\n\n"
    + examples("bbqrec data list", "bbqrec fit --dataset planted-smoke --variant bbqrec --preset smoke", "bbqrec runs"),
    suppress_keyboard_interrupt=False,  # `main` handles it
    default_parameter=Parameter(negative=()),  # no --no-json
)
