"""The Python example of the README runs as it is printed."""

import re
from pathlib import Path

import pytest


def test_the_python_example_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert (names["result"].directory / "rows.csv").is_file()
    printed = capsys.readouterr().out
    assert "ndcg@10" in printed
    assert "item_id" in printed
