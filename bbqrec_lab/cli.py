"""The `bbqrec` command, a thin layer over public functions; results go to stdout, progress goes to stderr."""

import argparse
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from bbqrec_lab.suite.process_pool import use_one_thread

PRESETS = ("smoke", "quick", "full")
COLUMNS = ("user", "item", "time", "rating", "title", "text", "image", "categories")
WORDS = {"True": True, "False": False, "None": None}


class _Parser(argparse.ArgumentParser):
    """An argument parser that prints each error on one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (try {self.prog} --help)\n")


def seeds(text: str) -> tuple[int, ...]:
    """Parse `0,1,2` into (0, 1, 2)."""
    return tuple(int(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Parse `02,05` into ("02", "05"), without the blanks around a name."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def overrides(text: str) -> dict[str, object]:
    """Parse config fields by name from `k=v,k=v` or from a JSON object (which also accepts lists).

    Raises: argparse.ArgumentTypeError naming the part that is neither.
    """
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    pairs = {}
    for part in names(text):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise argparse.ArgumentTypeError(f"expected name=value, got {part!r}")
        pairs[name.strip()] = _literal(value.strip())
    return pairs


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return WORDS.get(text, text)


def _list(_: argparse.Namespace) -> int:
    import polars as pl

    from bbqrec_lab.datasets import download, sources
    from bbqrec_lab.experiments import tables

    home = download.cache_dir() / "data"
    there = ["yes" if (home / name).exists() else "no" for name in sources.REGISTRY]
    about = [str(entry) for entry in sources.REGISTRY.values()]
    frame = pl.DataFrame({"dataset": list(sources.REGISTRY), "here": there, "what and terms": about})
    tables.show(frame, f"registered datasets, stored below {home}")
    return 0


def _get(args: argparse.Namespace) -> int:
    from bbqrec_lab.datasets import sources

    print(sources.get(args.name, posters=args.posters))
    return 0


def _encoders(_: argparse.Namespace) -> int:
    from bbqrec_lab.datasets import download, features

    for name, path in features.fetch_encoders(download.cache_dir()).items():
        print(f"{name}\t{path}")
    return 0


def _read(dataset: str) -> object:
    """Read and check a bundle by path or registered name; encode nothing."""
    from bbqrec_lab.datasets import reading, sources

    path = sources.get(dataset) if dataset in sources.REGISTRY else dataset
    return reading.read_bundle(path, reading.DataConfig())


def _check(args: argparse.Namespace) -> int:
    from bbqrec_lab.datasets import download, usable
    from bbqrec_lab.experiments import tables

    bundle = _read(args.path)
    print(f"{bundle.name} ({bundle.data_hash}): valid, {bundle.n_users} users, {bundle.n_items} items")
    for what, value in bundle.report.items():
        print(f"{what}: {value}")
    tables.show(usable.usable(bundle, download.cache_dir(), args.text_encoder), "what a model can use")
    return 0


def _stats(args: argparse.Namespace) -> int:
    from bbqrec_lab.datasets import reading
    from bbqrec_lab.experiments import tables

    bundle = _read(args.path)
    tables.show(reading.statistics(bundle), f"{bundle.name} ({bundle.data_hash})")
    return 0


def _import(args: argparse.Namespace) -> int:
    from bbqrec_lab.datasets.importing import Columns, import_data
    from bbqrec_lab.experiments import tables

    columns = Columns(**{name: getattr(args, name) for name in (*COLUMNS, "zone")})
    report = import_data(args.source, args.to, args.items, args.images, args.features, columns)
    tables.show(report.table(), f"imported to {report.folder}")
    return 0


def _variants(_: argparse.Namespace) -> int:
    import polars as pl

    from bbqrec_lab.experiments import tables, variants

    lines = [(name, variant.group, variant.note) for name, variant in variants.VARIANTS.items()]
    tables.show(pl.DataFrame(lines, schema=["variant", "group", "note"], orient="row"), "variants for bbqrec fit")
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from bbqrec_lab.suite import reproduce

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    jobs = min(8, cores) if args.jobs is None else args.jobs
    request = reproduce.Request(args.dataset, args.preset, args.seeds, args.only, jobs, args.out)
    return reproduce.reproduce(request)


def _fit(args: argparse.Namespace) -> int:
    from bbqrec_lab.datasets import sources
    from bbqrec_lab.experiments import presets, runs, tables, variants
    from bbqrec_lab.store import Store

    if args.variant not in variants.VARIANTS:
        raise ValueError(f"no variant {args.variant!r}: choose one of {', '.join(variants.VARIANTS)}")
    settings = presets.make_config(args.preset, args.seed, args.overrides)
    data = sources.load(args.dataset, settings.data, encoded=variants.reads_features(args.variant, settings))
    result = runs.run_variant(data, args.variant, settings, Store(args.out / "artefacts"))
    caption = f"{data.name} ({data.data_hash}), preset {args.preset}, seed {args.seed}, test part, full catalogue"
    tables.show(tables.summary(result.rows), caption)
    print(f"for bbqrec recommend: --run {result.directory}")
    return 0


def _recommend(args: argparse.Namespace) -> int:
    from bbqrec_lab.experiments import runs, tables

    if not args.directory.is_dir():
        raise ValueError(f"no run at {args.directory}: give --run the folder that bbqrec fit prints")
    found = runs.recommend(args.directory, list(args.items), args.k)
    if args.json:
        print(json.dumps(found.to_dicts(), ensure_ascii=False, indent=1))
    else:
        tables.show(found, f"recommended after {', '.join(args.items)}")
    return 0


def _ids(args: argparse.Namespace) -> int:
    import polars as pl

    from bbqrec_core.tokenizer import semantic_ids
    from bbqrec_lab.datasets import id_files

    source = args.directory / "ids.npz"
    if not source.exists():
        raise ValueError(f"no IDs at {args.directory}: give the folder that bbqrec fit prints for a variant with IDs")
    items = pl.read_parquet(args.directory / "items.parquet")
    id_files.write_ids(args.to, items["item_id"], semantic_ids.SemanticIds.load(source).code_ids)
    print(args.to)
    return 0


def _lab(_: argparse.Namespace) -> int:
    from bbqrec_lab.suite import notebooks

    command = [sys.executable, "-m", "jupyterlab", str(notebooks.notebook_folder()), "--ServerApp.ip=127.0.0.1"]
    command += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container; loopback address and token still protect it
        command.append("--allow-root")
    return subprocess.call(command)


def _inspector(args: argparse.Namespace) -> int:
    from bbqrec_lab.suite import web_page

    return web_page.serve_page(args.notebook, args.dataset, args.preset, args.out, args.port)


def _book(args: argparse.Namespace) -> int:
    from bbqrec_lab.suite import book

    print(book.build(args.dataset, args.preset, args.out))
    return 0


def _add(commands: argparse._SubParsersAction, name: str, run: Callable, what: str) -> argparse.ArgumentParser:
    """Add a command that calls `run`; it accepts --debug before and after its name."""
    command = commands.add_parser(name, help=what, description=what)
    command.set_defaults(run=run)
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    return command


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", default="ml-100k", metavar="NAME|PATH", help="default ml-100k")
    command.add_argument("--preset", default="quick", choices=PRESETS, help="default quick")
    command.add_argument("--out", default=Path("runs"), type=Path, metavar="DIR", help="default runs")


def _add_run_commands(commands: argparse._SubParsersAction) -> None:
    job = _add(commands, "reproduce", _reproduce, "run all variants and notebooks; writes tables and figures")
    _add_run_options(job)
    job.add_argument("--seeds", default=(0, 1, 2), type=seeds, metavar="N,N,...", help="default 0,1,2")
    job.add_argument("--only", default=(), type=names, metavar="NN,NN", help="only these notebooks, e.g. 02,05")
    job.add_argument(
        "--jobs", type=int, metavar="N", help="parallel variants or notebooks; default: one per core, at most 8"
    )
    fit = _add(commands, "fit", _fit, "train and evaluate one variant; prints its results")
    _add_run_options(fit)
    fit.add_argument("--variant", required=True, metavar="NAME", help="see bbqrec variants")
    fit.add_argument("--seed", default=0, type=int, metavar="N", help="default 0")
    fit.add_argument("--overrides", default={}, type=overrides, metavar="K=V,...", help="config fields, or JSON")
    again = _add(commands, "recommend", _recommend, "recommend the next items after a history")
    again.add_argument("--run", dest="directory", required=True, type=Path, metavar="DIR", help="folder printed by fit")
    again.add_argument("--items", required=True, type=names, metavar="ID,ID,...", help="oldest first")
    again.add_argument("--k", default=10, type=int, metavar="N", help="number of items; default 10")
    again.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    ids = _add(commands, "ids", _ids, "write the semantic IDs of a run; fit can read them (source=file, ids_file=...)")
    ids.add_argument("--run", dest="directory", required=True, type=Path, metavar="DIR", help="folder printed by fit")
    ids.add_argument("--to", required=True, type=Path, metavar="FILE", help="ending in .parquet, or .json (index.json)")
    _add(commands, "variants", _variants, "list the variants that fit can train")
    page = _add(commands, "inspector", _inspector, "serve the codebook inspector as a web page, on this machine only")
    _add_run_options(page)
    page.add_argument("--port", default=8866, type=int, metavar="N", help="default 8866")
    page.add_argument("--notebook", default="07", metavar="NN", help="notebook to serve, e.g. 02 or 04; default 07")
    _add_run_options(_add(commands, "book", _book, "build an offline web site of the executed notebooks"))
    _add(commands, "lab", _lab, "open the notebooks in JupyterLab, on this machine only")


def _add_data_commands(parts: argparse._SubParsersAction) -> None:
    _add(parts, "list", _list, "list the registered datasets and their terms of use")
    get = _add(parts, "get", _get, "download and build a dataset; prints its folder")
    get.add_argument("name")
    get.add_argument("--posters", default="", metavar="DIR", help="pictures for MovieLens: a folder, or `get`")
    check = _add(parts, "check", _check, "check a bundle; reports faults, dropped rows, and what a model can use")
    check.add_argument("path")
    check.add_argument(
        "--text-encoder", default="auto", metavar="NAME", help="english, ngrams, or a model; default auto"
    )
    _add(parts, "stats", _stats, "statistics of a bundle or registered dataset").add_argument("path")
    _add(parts, "encoders", _encoders, "download the frozen text and image encoders")
    _add_import(parts)


def _add_import(parts: argparse._SubParsersAction) -> None:
    own = _add(parts, "import", _import, "make a bundle of your own tables, pictures and embeddings")
    own.add_argument(
        "source", metavar="SOURCE", help="table of interactions, or folder with its part files or a dataset"
    )
    own.add_argument("--to", required=True, metavar="FOLDER", help="folder of the bundle; must not exist or be empty")
    own.add_argument("--items", metavar="FILE", help="table of items: title, text, categories, picture")
    own.add_argument("--images", metavar="DIR", help="pictures named ID.jpg, or as the column of pictures says")
    own.add_argument("--features", action="append", default=[], metavar="FILE", help="embeddings; may be repeated")
    for name in COLUMNS:
        own.add_argument(f"--{name}", default="", metavar="COLUMN", help=f"column of the {name}; default: guessed")
    own.add_argument("--zone", default="", metavar="NAME", help="zone of times without one; default UTC")


def parser() -> argparse.ArgumentParser:
    """The argument parser; imports nothing slow, so --help is instant."""
    top = _Parser(prog="bbqrec", description="Behaviour-bound semantic IDs for sequential recommendation.")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_run_commands(commands)
    data = commands.add_parser("data", help="datasets: list, get, check, stats, import; encoders")
    _add_data_commands(data.add_subparsers(required=True, metavar="COMMAND"))
    return top


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns: 0 success; 1 the work failed; 2 the request, a file or the data are wrong; 130 interrupted.
    """
    args = parser().parse_args(argv)
    use_one_thread()
    previous = signal.signal(signal.SIGTERM, _interrupt)  # a plain kill then stops the workers too
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("bbqrec: interrupted; finished results are kept, run the same command to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (for example `head`) closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # top level: one line for the user, the traceback with --debug
        if args.debug:
            traceback.print_exc()
        return _one_line(error)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _one_line(error: Exception) -> int:
    """Print cause and remedy; return 2 if the caller can fix the error, 1 if the work failed."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError):
        print(f"bbqrec: {text}", file=sys.stderr)
        return 2
    if isinstance(error, OSError):
        print(f"bbqrec: {text}: check that the file exists, is readable, and the disk has space", file=sys.stderr)
        return 2
    print(f"bbqrec: {type(error).__name__}: {text} (--debug prints the traceback)", file=sys.stderr)
    return 1
