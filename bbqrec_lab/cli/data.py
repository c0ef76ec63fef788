"""Commands on datasets: `bbqrec data ...`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import App, Parameter

from bbqrec_lab.cli.app import app as top
from bbqrec_lab.cli.options import Encoder, Json, examples
from bbqrec_lab.cli.output import print_json, print_rows
from bbqrec_lab.terminal import say, tell

app = App(
    name="data",
    help="Datasets: list, get, check, stats, import; encoders.",
    help_epilogue=examples("bbqrec data list", "bbqrec data get ml-100k", "bbqrec data import orders.csv --to my-shop"),
)
top.command(app)

Bundle = Annotated[str, Parameter(help="Folder of a bundle, or registered name.")]


@app.command(name="list", help_epilogue=examples("bbqrec data list", "bbqrec data list --json"))
def list_datasets(*, json: Json = False) -> int:
    """List the registered datasets and their terms of use."""
    import polars as pl

    from bbqrec_lab.datasets import download, sources

    home = download.cache_dir() / "data"
    there = ["yes" if (home / name).exists() else "no" for name in sources.REGISTRY]
    about = [str(entry) for entry in sources.REGISTRY.values()]
    frame = pl.DataFrame({"dataset": list(sources.REGISTRY), "here": there, "what and terms": about})
    print_rows(frame, f"registered datasets, stored below {home}", json)
    return 0


@app.command(help_epilogue=examples("bbqrec data get planted", "bbqrec data get ml-100k --posters get"))
def get(
    name: Annotated[str, Parameter(help="Registered name; bbqrec data list shows them.")],
    /,
    *,
    posters: Annotated[str, Parameter(help="Pictures for MovieLens: a folder, or `get`.", show_default=False)] = "",
) -> int:
    """Download and build a dataset; prints its folder."""
    from bbqrec_lab.datasets import sources

    tell(sources.get(name, posters=posters))
    return 0


def read(dataset: str) -> object:
    """Read and check a bundle by path or registered name; encode nothing."""
    from bbqrec_lab.datasets import reading, sources

    path = sources.get(dataset) if dataset in sources.REGISTRY else dataset
    return reading.read_bundle(path, reading.DataConfig())


@app.command(help_epilogue=examples("bbqrec data check my-shop", "bbqrec data check ml-100k --json"))
def check(path: Bundle, /, *, text_encoder: Encoder = "auto", json: Json = False) -> int:
    """Check a bundle; reports faults, dropped rows, and what a model can use."""
    from bbqrec_lab.datasets import download, usable

    bundle = read(path)
    offered = usable.usable(bundle, download.cache_dir(), text_encoder)
    if json:
        about = {"dataset": bundle.name, "data_hash": bundle.data_hash, "valid": True}
        about |= {"users": bundle.n_users, "items": bundle.n_items, "report": bundle.report}
        print_json(about | {"usable": offered.to_dicts()})
        return 0
    tell(f"{bundle.name} ({bundle.data_hash}): valid, {bundle.n_users} users, {bundle.n_items} items")
    for what, value in bundle.report.items():
        tell(f"{what}: {value}")
    print_rows(offered, "what a model can use", json)
    asked = f"--dataset {quote(str(path))}"
    say(f"next: bbqrec inspector {asked} shows its semantic IDs; bbqrec reproduce {asked} makes all tables and figures")
    return 0


@app.command(help_epilogue=examples("bbqrec data stats ml-100k", "bbqrec data stats my-shop --json"))
def stats(path: Bundle, /, *, json: Json = False) -> int:
    """Statistics of a bundle or registered dataset."""
    from bbqrec_lab.datasets import reading

    bundle = read(path)
    print_rows(reading.statistics(bundle), f"{bundle.name} ({bundle.data_hash})", json)
    return 0


@app.command(help_epilogue=examples("bbqrec data encoders"))
def encoders(*, json: Json = False) -> int:
    """Download the frozen text and image encoders."""
    from bbqrec_lab.datasets import download, features

    found = {name: str(path) for name, path in features.fetch_encoders(download.cache_dir()).items()}
    if json:
        print_json(found)
        return 0
    for name, path in found.items():
        tell(f"{name}\t{path}")
    return 0


def _column(what: str) -> object:
    return Annotated[str, Parameter(help=f"Column of the {what}; guessed if not given.", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class ColumnOptions:
    """The columns of the tables, and the zone of times without one."""

    user: _column("user") = ""
    item: _column("item") = ""
    time: _column("time") = ""
    rating: _column("rating") = ""
    title: _column("title") = ""
    text: _column("text") = ""
    image: _column("picture") = ""
    categories: _column("categories") = ""
    zone: Annotated[str, Parameter(help="Zone of times without one; else UTC.", show_default=False)] = ""


GUESSED = ColumnOptions()


@app.command(
    name="import",
    help_epilogue=examples(
        "bbqrec data import orders.csv --items products.csv --images pictures --to my-shop",
        "bbqrec data import orders.csv --user customer --time bought_at --zone Europe/Berlin --to my-shop",
    ),
)
def import_own(
    source: Annotated[Path, Parameter(help="Table of interactions, or folder with its part files or a dataset.")],
    /,
    *,
    to: Annotated[Path, Parameter(help="Folder of the bundle; must not exist or be empty.")],
    items: Annotated[Path | None, Parameter(help="Table of items: title, text, categories, picture.")] = None,
    images: Annotated[Path | None, Parameter(help="Pictures named ID.jpg, or as the column of pictures says.")] = None,
    features: Annotated[tuple[Path, ...], Parameter(help="Embeddings; may be repeated.", show_default=False)] = (),
    columns: ColumnOptions = GUESSED,
    json: Json = False,
) -> int:
    """Make a bundle of your own tables, pictures and embeddings."""
    from bbqrec_lab.datasets.importing import Columns, import_data

    report = import_data(source, to, items, images, features, Columns(**asdict(columns)))
    print_rows(report.table(), f"imported to {report.folder}", json)
    say(f"next: bbqrec data check {quote(str(report.folder))}")
    return 0
