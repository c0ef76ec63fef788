"""Commands on datasets: `bbqrec data ...`."""

from typing import Annotated

from cyclopts import App, Parameter

from bbqrec_lab.cli.app import app as top
from bbqrec_lab.cli.options import Json, examples
from bbqrec_lab.cli.output import print_json, print_rows

app = App(
    name="data",
    help="Datasets: list, get, check, stats; encoders.",
    help_epilogue=examples("bbqrec data list", "bbqrec data get ml-100k", "bbqrec data check my-shop"),
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

    print(sources.get(name, posters=posters))
    return 0


def read(dataset: str) -> object:
    """Read and check a bundle by path or registered name; encode nothing."""
    from bbqrec_lab.datasets import reading, sources

    path = sources.get(dataset) if dataset in sources.REGISTRY else dataset
    return reading.read_bundle(path, reading.DataConfig())


@app.command(help_epilogue=examples("bbqrec data check my-shop", "bbqrec data check ml-100k --json"))
def check(path: Bundle, /, *, json: Json = False) -> int:
    """Check a bundle; reports faults and dropped rows."""
    bundle = read(path)
    if json:
        about = {"dataset": bundle.name, "data_hash": bundle.data_hash, "valid": True}
        print_json(about | {"users": bundle.n_users, "items": bundle.n_items, "report": bundle.report})
        return 0
    print(f"{bundle.name} ({bundle.data_hash}): valid, {bundle.n_users} users, {bundle.n_items} items")
    for what, value in bundle.report.items():
        print(f"{what}: {value}")
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
        print(f"{name}\t{path}")
    return 0
