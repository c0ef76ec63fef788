"""Own data: tables, pictures and embeddings in the layouts of shops and publishers become a bundle.

`import_data` guesses what the columns mean and says so; it streams, so memory is bounded. The report names what was
understood, what was dropped and counted, and what was passed over and why.
"""

from bbqrec_lab.datasets.importing.columns import Columns
from bbqrec_lab.datasets.importing.importer import import_data
from bbqrec_lab.datasets.importing.report import ImportReport

__all__ = ["Columns", "ImportReport", "import_data"]
