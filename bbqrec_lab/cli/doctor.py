"""`bbqrec doctor`: what is there and what is missing; it works without any other package than the command itself."""

from pathlib import Path

from bbqrec_lab.cli.app import app
from bbqrec_lab.cli.options import Json, Out, examples
from bbqrec_lab.cli.output import print_json
from bbqrec_lab.terminal import tell


@app.command(help_epilogue=examples("bbqrec doctor", "bbqrec doctor --out results --json"))
def doctor(*, out: Out = Path("runs"), json: Json = False) -> int:
    """Say what this machine has, what is missing, and the command that mends it."""
    from bbqrec_lab.suite import doctor as suite

    findings = suite.examine(out)
    if json:
        print_json([one._asdict() for one in findings])
    else:
        tell(suite.page(findings))
    return int(any(one.state == suite.MISSING for one in findings))
