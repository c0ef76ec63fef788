"""`python -m bbqrec_lab.cli`."""

import sys

from bbqrec_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
