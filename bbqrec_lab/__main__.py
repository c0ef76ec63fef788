"""`python -m bbqrec_lab`, the same as the command `bbqrec`."""

import sys

from bbqrec_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
