"""The command line: exit codes, one-line errors, results on standard output, nothing slow for --help."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import polars as pl
import pytest
from tiny import semantic_ids

from bbqrec_lab import cli, store
from bbqrec_lab.datasets import bundle, download, features, reading, sources, usable
from bbqrec_lab.experiments import fitting, runs, variants
from bbqrec_lab.suite import lab

ROWS = pl.DataFrame(
    [("toy", "00aa11bb", "bbqrec", 4, "included", "all", "recall@10", 0.25)],
    schema=["dataset", "data_hash", "variant", "seed", "seen_items", "segment", "metric", "value"],
    orient="row",
)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Stand-ins for the slow rooms below; `calls` holds what the commands asked of them."""
    calls: list[tuple] = []
    bundle = SimpleNamespace(
        name="toy", data_hash="00aa11bb", n_users=3, n_items=4, report={"dropped: null user_id": 2}
    )

    def run_variant(*given: object) -> runs.Result:
        calls.append(given)
        return runs.Result("bbqrec", 4, ROWS, ROWS, tmp_path / "run")

    def get(name: str, posters: str = "") -> Path:
        calls.append((name, posters))
        return tmp_path / name

    monkeypatch.setattr(variants, "VARIANTS", {"bbqrec": variants.Variant("main", "all of it")})
    monkeypatch.setattr(fitting, "run_variant", run_variant)
    monkeypatch.setattr(fitting, "tell_rows", lambda *_, **__: None)
    monkeypatch.setattr(sources, "REGISTRY", {"toy": "a toy, free"})
    monkeypatch.setattr(sources, "get", get)
    monkeypatch.setattr(sources, "load", lambda name, options, encoded: bundle)
    monkeypatch.setattr(variants, "reads_features", lambda name, settings: True)
    monkeypatch.setattr(usable, "usable", lambda bundle, cache, encoder: pl.DataFrame({"modality": [encoder]}))
    monkeypatch.setattr(download, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(features, "fetch_encoders", lambda cache: {"text": cache / "text"})
    monkeypatch.setattr(reading, "read_bundle", lambda path, options: calls.append((path,)) or bundle)
    monkeypatch.setattr(reading, "statistics", lambda bundle: pl.DataFrame({"what": ["users"], "value": ["3"]}))
    return SimpleNamespace(calls=calls, bundle=bundle)


@pytest.mark.parametrize(
    "command",
    [
        "nonsense",
        "fit",
        "fit --variant bbqrec --preset tiny",
        "fit --variant bbqrec --overrides codes",
        "fit --variant bbqrec --overrides {codes:1}",
        "reproduce --seeds 0,a",
        "recommend --items 1 --item 2",
        "recommend",
        "data lst",
        "config --nonsense",
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_line(command: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("codes must be at least 2,\n got 1"), 2, "bbqrec: codes must be at least 2, got 1"),
        (FileNotFoundError(2, "No such file", "a.parquet"), 2, "bbqrec: [Errno 2] No such file: 'a.parquet': check"),
        (bundle.BundleError("items.parquet: row 3: title: null: fill it"), 2, "bbqrec: items.parquet: row 3"),
        (RuntimeError("loss is nan"), 1, "bbqrec: RuntimeError: loss is nan (--debug prints the traceback)"),
        (RuntimeError("title \x1b[2J"), 1, r"bbqrec: RuntimeError: title \x1b[2J"),
        (
            KeyboardInterrupt(),
            130,
            "bbqrec: interrupted; finished results are kept, run the same command to continue",
        ),
    ],
)
@pytest.mark.parametrize("debug", [(), ("before",), ("after",)])
def test_errors_are_one_line_with_their_exit_code(
    core: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    error: BaseException,
    code: int,
    text: str,
    debug: tuple,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(download, "cache_dir", fail)
    command = [*["--debug"] * ("before" in debug), "data", "list", *["--debug"] * ("after" in debug)]
    assert cli.main(command) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[-1].startswith(text)
    assert (lines[0] == "Traceback (most recent call last):") == (bool(debug) and code != 130)
    assert debug or len(lines) == 1
    assert "\x1b" not in printed.err, "with the traceback, too"


def test_fit_passes_its_options_on_and_prints_one_row(
    core: SimpleNamespace, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    command = f"fit --dataset toy --variant bbqrec --preset smoke --seed 4 --overrides codes=8 --out {tmp_path}"
    assert cli.main(command.split()) == 0
    ((bundle, variant, settings, store),) = core.calls
    assert (bundle, variant, store.root) == (core.bundle, "bbqrec", tmp_path / "artefacts")
    assert (settings.preset, settings.seed, settings.tokenizer.codes) == ("smoke", 4, 8)
    printed = capsys.readouterr().out
    assert "0.2500" in printed
    assert f"--run {tmp_path / 'run'}" in printed
    assert cli.main([*command.split(), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["variant"], row["metric"], row["value"]) == ("bbqrec", "recall@10", 0.25)
    assert row["folder"] == str(tmp_path / "run")


def test_fit_refuses_an_unknown_variant_before_reading_data(
    core: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sources, "load", None)
    assert cli.main(["fit", "--variant", "bbq"]) == 2
    assert capsys.readouterr().err == "bbqrec: no variant 'bbq': did you mean 'bbqrec'? choose one of bbqrec\n"


def test_ids_of_a_run_are_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, table = tmp_path / "run", semantic_ids(3, (4, 4))
    run.mkdir()
    table.save(run / "ids.npz")
    pl.DataFrame({"item_id": ["x", "y", "z"], "title": [None] * 3}).write_parquet(run / "items.parquet")
    store.finish(run, {})
    assert cli.main(["ids", "--run", str(run), "--to", str(tmp_path / "out" / "index.json")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.json")
    written = json.loads((tmp_path / "out" / "index.json").read_text())
    assert written["y"] == [f"<a_{table.code_ids[2, 0]}>", f"<b_{table.code_ids[2, 1]}>"]
    assert cli.main(["ids", "--run", str(tmp_path), "--to", "x.json"]) == 2
    assert "give the folder that bbqrec fit prints" in capsys.readouterr().err


def test_data_commands_print_on_standard_output(
    core: SimpleNamespace, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def printed(command: str) -> str:
        assert cli.main(command.split()) == 0
        return capsys.readouterr().out

    assert "a toy, free" in printed("data list")
    assert printed("data get toy --posters some") == f"{tmp_path / 'toy'}\n"
    assert core.calls.pop() == ("toy", "some")
    lines = printed("data check ./here --text-encoder some/model").splitlines()
    assert "2" in lines[1]
    assert "some/model" in lines[-2], "the check ends with what a model can use"
    assert core.calls.pop() == ("./here",)
    assert "users" in printed("data stats toy")
    assert core.calls[-2:] == [("toy", ""), (tmp_path / "toy",)]
    assert printed("data encoders") == f"text\t{tmp_path / 'text'}\n"
    assert "all of it" in printed("variants")


def test_every_table_is_printed_as_json_too(core: SimpleNamespace, capsys: pytest.CaptureFixture) -> None:
    def rows(command: str) -> object:
        assert cli.main([*command.split(), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert rows("data list") == [{"dataset": "toy", "here": "no", "what and terms": "a toy, free"}]
    assert rows("data check ./here")["report"] == {"dropped: null user_id": 2}
    assert rows("data stats toy") == [{"what": "users", "value": "3"}]
    assert list(rows("data encoders")) == ["text"]
    row = {"variant": "bbqrec", "group": "main", "note": "all of it", "holds": "semantic IDs, counts of pairs"}
    assert rows("variants") == [row | {"recipe": "trials of generation"}]
    settings = {row["setting"]: row for row in rows("config --preset smoke --overrides levels=5")}
    assert (settings["tokenizer.levels"]["value"], settings["tokenizer.levels"]["source"]) == (5, "given")


def test_reproduce_hands_over_its_options(
    core: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bbqrec_lab.suite import reproduce

    monkeypatch.setattr(reproduce, "reproduce", lambda request: core.calls.append(request) or 1)
    command = f"reproduce --dataset toy --preset full --seeds 3,4 --only 02,05 --jobs 7 --out {tmp_path}"
    assert cli.main(command.split()) == 1
    assert core.calls.pop() == reproduce.Request("toy", "full", (3, 4), ("02", "05"), 7, tmp_path)
    assert cli.main(["reproduce", "--dataset", "toy"]) == 1
    default = core.calls.pop()
    assert (default.preset, default.seeds, default.only, default.out.name) == ("quick", (0, 1, 2), (), "runs")
    assert default.overrides == {}
    assert cli.main(["reproduce", "--dataset", "toy", "--text-encoder", "ngrams", "--precision", "bf16"]) == 1
    assert core.calls.pop().overrides == {"text_encoder": "ngrams", "precision": "bf16"}
    assert 1 <= default.jobs <= 8


def test_lab_listens_on_this_machine_only_and_keeps_its_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = []
    monkeypatch.setattr(lab, "until_interrupted", lambda command, env: commands.append(command) or 0)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(lab, "notebook_folder", lambda: tmp_path / "notebooks")
    assert cli.main(["lab"]) == 0
    assert commands[0][:4] == [sys.executable, "-m", "jupyterlab", str(tmp_path)]
    assert "--ServerApp.ip=127.0.0.1" in commands[0]
    assert not [option for option in commands[0] if "token" in option or "password" in option]


def test_a_plain_kill_is_an_interruption_and_the_handler_is_put_back(
    core: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(download, "cache_dir", lambda: signal.raise_signal(signal.SIGTERM))
    assert cli.main(["data", "list"]) == 130
    assert signal.getsignal(signal.SIGTERM) is not cli._interrupt


def test_a_reader_that_stops_reading_is_no_error() -> None:
    code = (
        "import sys\nfrom bbqrec_lab import cli\nfrom bbqrec_lab.cli import data\n"
        "data.print_rows = lambda *given: [print('x' * 99) for _ in range(9999)]\nsys.exit(cli.main(['data', 'list']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_preset_choices_are_those_of_the_configuration() -> None:
    from bbqrec_lab.cli import options
    from bbqrec_lab.experiments import presets

    assert set(get_args(options.Preset)) == set(presets.PRESETS)
