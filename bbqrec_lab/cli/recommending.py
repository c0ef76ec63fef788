"""Commands on a finished run: `recommend` and `ids`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bbqrec_lab.cli.app import app
from bbqrec_lab.cli.options import RUN_CHOICE, Json, RunChoice, examples, names
from bbqrec_lab.cli.output import print_rows
from bbqrec_lab.terminal import say, tell


def _shown(about: str) -> Parameter:
    """An option without a default; its value may begin with a hyphen."""
    return Parameter(help=about, show_default=False, allow_leading_hyphen=True)


@Parameter(name="*")
@dataclass(frozen=True)
class History:
    """Whose next items: after given items, or of users of the dataset; exactly one of these options."""

    item: Annotated[tuple[str, ...], _shown("An item ID; repeat it for each item, oldest first.")] = ()
    items: Annotated[str, _shown("ID,ID,...: item IDs without commas, oldest first.")] = ""
    items_from: Annotated[str, _shown("File with one item ID per line, oldest first; - reads standard input.")] = ""
    user: Annotated[str, _shown("ID of a user of the dataset.")] = ""
    users: Annotated[
        str, _shown("File with one user ID per line, or parquet with user_id; - reads standard input.")
    ] = ""

    def given(self) -> str:
        """The name of the option that is given. Raises: ValueError if it is not exactly one."""
        found = [name for name in ("item", "items", "items_from", "user", "users") if getattr(self, name)]
        if len(found) != 1:
            told = ", ".join("--" + name.replace("_", "-") for name in found) or "none"
            raise ValueError(f"give exactly one of --item, --items, --items-from, --user, --users; given: {told}")
        return found[0]


NO_HISTORY = History()


@app.command(
    help_epilogue=examples(
        "bbqrec recommend --item 50 --item 181 --k 5",
        "bbqrec recommend --dataset my-shop --variant sasrec --items 7,12,3 --json",
        "cat ids.txt | bbqrec recommend --run DIR --items-from -",
        "bbqrec recommend --dataset my-shop --users users.txt --to best.parquet",
    )
)
def recommend(
    *,
    history: History = NO_HISTORY,
    where: RunChoice = RUN_CHOICE,
    k: Annotated[int, Parameter(help="Number of items.")] = 10,
    to: Annotated[Path | None, Parameter(help="Write a .parquet file instead of a table.")] = None,
    json: Json = False,
) -> int:
    """Recommend the next items after a history, or for users of the dataset."""
    from bbqrec_lab.experiments import runs

    kind = history.given()
    if to is not None and to.suffix.lower() != ".parquet":
        raise ValueError(f"--to {to}: give a file ending in .parquet")
    if kind in ("user", "users"):
        users = [history.user] if kind == "user" else read_ids(history.users, "user_id")
        run, about = where.find(), f"of {len(users)} users" if kind == "users" else f"of user {history.user}"
        found = runs.recommend_users(run, _known(run, users) if kind == "users" else users, k)
    else:
        items = {"item": list(history.item), "items": list(names(history.items))}.get(kind)
        items = read_ids(history.items_from, "item_id") if items is None else items
        found, about = runs.recommend(where.find(), items, k), f"after {', '.join(items)}"
    if to is None:
        print_rows(found, f"recommended {about}", json)
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        found.write_parquet(to)
        tell(to)
    return 0


@app.command(
    name="ids",
    help_epilogue=examples(
        "bbqrec ids --run DIR --to index.json", "bbqrec ids --dataset my-shop --variant bbqrec --to ids.parquet"
    ),
)
def write_ids(
    *,
    to: Annotated[Path, Parameter(help="File ending in .parquet, or in .json (index.json).")],
    where: RunChoice = RUN_CHOICE,
) -> int:
    """Write the semantic IDs of a run; fit can read them (source=file, ids_file=...)."""
    import polars as pl

    from bbqrec_core.tokenizer import semantic_ids
    from bbqrec_lab import store
    from bbqrec_lab.datasets import id_files

    directory = where.find()
    source = directory / "ids.npz"
    if not source.exists():
        raise ValueError(f"no IDs at {directory}: give the folder that bbqrec fit prints for a variant with IDs")
    store.verify(directory, but="ranks_*")
    items = pl.read_parquet(directory / "items.parquet", glob=False)
    id_files.write_ids(to, items["item_id"], semantic_ids.SemanticIds.load(source).code_ids)
    tell(to)
    return 0


def read_ids(source: str, column: str) -> list[str]:
    """IDs of a text file with one per line, of a column of a parquet file, or of standard input (`-`).

    Raises: ValueError if there is none.
    """
    if source.lower().endswith(".parquet"):
        import polars as pl

        found = pl.read_parquet(source, columns=[column], glob=False)[column].cast(pl.String).drop_nulls().to_list()
    else:
        content = Path(source).read_bytes() if source != "-" else sys.stdin.buffer.read()
        found = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    if not found:
        raise ValueError(f"{'standard input' if source == '-' else source}: no IDs: write one per line")
    return found


def _known(run: Path, users: list[str]) -> list[str]:
    """The users that the run knows; says how many it does not know. Raises: ValueError if it knows none."""
    from bbqrec_lab.experiments import runs

    unknown = set(runs.unknown_users(run, users))
    if unknown:
        some = ", ".join(sorted(unknown)[:5])
        say(f"{len(unknown)} of {len(users)} users are not in the data of this run and are left out: {some}")
    known = [user for user in users if user not in unknown]
    if not known:
        raise ValueError("no user of the list is in the data of this run: give values of the column user_id")
    return known
