"""The copies that JupyterLab opens: an evening in them changes nothing that git sees, and edits are never lost."""

import json
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from bbqrec_lab.suite import lab, notebooks

ROOT = Path(__file__).resolve().parents[3]


def write(path: Path, *sources: str, output: str = "") -> None:
    """A notebook with these code cells, executed if there is an output."""
    cells = [nbformat.v4.new_code_cell(source, id=f"c{place}") for place, source in enumerate(sources)]
    for cell in cells if output else ():
        cell.execution_count, cell.outputs = 1, [nbformat.v4.new_output("stream", text=output)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def sources(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Notebooks with solutions, and their copies."""
    source, copies = tmp_path / "notebooks", tmp_path / "lab"
    write(source / "00_first.ipynb", "answer = None")
    write(source / "solutions" / "00_first.ipynb", "answer = 1")
    (source / "README.md").write_text("words")
    assert lab.refresh(source, copies) == []
    return source, copies


def test_notebooks_solutions_and_their_page_are_copied(folders: tuple[Path, Path]) -> None:
    source, copies = folders
    for name in ("00_first.ipynb", "solutions/00_first.ipynb", "README.md"):
        assert (copies / name).read_bytes() == (source / name).read_bytes()


def test_a_copy_without_edits_follows_its_notebook(folders: tuple[Path, Path]) -> None:
    source, copies = folders
    write(copies / "00_first.ipynb", "answer = None", output="executed")
    assert lab.refresh(source, copies) == []
    assert "executed" in (copies / "00_first.ipynb").read_text(), "outputs stay while the notebook is the same"
    write(source / "00_first.ipynb", "answer = None  # new")
    assert lab.refresh(source, copies) == []
    assert sources(copies / "00_first.ipynb") == ["answer = None  # new"]


def test_edits_of_the_reader_are_kept_and_named_until_the_copy_is_deleted(folders: tuple[Path, Path]) -> None:
    source, copies = folders
    write(copies / "00_first.ipynb", "answer = 2", output="mine")
    assert lab.refresh(source, copies) == []
    write(source / "00_first.ipynb", "answer = None  # new")
    for _ in range(2):
        assert lab.refresh(source, copies) == ["00_first.ipynb"]
        assert sources(copies / "00_first.ipynb") == ["answer = 2"]
    (copies / "00_first.ipynb").unlink()
    assert lab.refresh(source, copies) == []
    assert sources(copies / "00_first.ipynb") == ["answer = None  # new"]


def test_a_lost_record_loses_no_edits(folders: tuple[Path, Path]) -> None:
    source, copies = folders
    write(copies / "00_first.ipynb", "answer = 2")
    (copies / lab.COPIED).unlink()
    assert lab.refresh(source, copies) == ["00_first.ipynb"]
    assert sources(copies / "00_first.ipynb") == ["answer = 2"]


def test_executing_and_editing_all_copies_leaves_git_clean(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copyfile(ROOT / ".gitignore", root / ".gitignore")

    def git(*command: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *identity, *command], cwd=root, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "all")
    lab.refresh(root / "notebooks", root / "lab")
    saved = sorted((root / "lab").rglob("*.ipynb"))
    assert len(saved) == len(list((root / "notebooks").rglob("*.ipynb")))
    for path in saved:
        write(path, "answer = 1", output="executed")
    assert git("status", "--porcelain", "--untracked-files=all") == ""


def test_a_notebook_that_is_saved_in_its_own_folder_loses_its_outputs_and_keeps_its_edits(tmp_path: Path) -> None:
    from jupyter_server.services.contents.filemanager import FileContentsManager
    from nbformat.sign import MemorySignatureStore, NotebookNotary

    (tmp_path / "notebooks").mkdir()
    notary = NotebookNotary(store_factory=MemorySignatureStore, secret=b"-")  # else a database among the user's files
    server = FileContentsManager(
        root_dir=str(tmp_path),
        pre_save_hook="bbqrec_lab.suite.lab.without_outputs",
        notary=notary,
    )
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        path = tmp_path / "notebooks" / source.name
        shutil.copyfile(source, path)
        model = server.get(f"notebooks/{source.name}")
        model["content"]["metadata"] |= {"language_info": {"name": "python", "version": "3.99"}, "widgets": {"a": 1}}
        for cell in model["content"]["cells"]:
            cell["metadata"]["trusted"] = True
            if cell["cell_type"] == "code":
                cell["execution_count"], cell["outputs"] = 7, [nbformat.v4.new_output("stream", text="executed")]
                cell["metadata"]["execution"] = {"iopub.status.busy": "now"}
        server.save(model, f"notebooks/{source.name}")
        assert path.read_bytes() == source.read_bytes(), source.name
        model["content"]["cells"][0]["source"] = "an edit"
        server.save(model, f"notebooks/{source.name}")
        assert sources(path)[0] == "an edit"
    (tmp_path / "lab").mkdir()
    write(tmp_path / "lab" / "a.ipynb", "1", output="executed")
    server.save(server.get("lab/a.ipynb"), "lab/a.ipynb")
    assert "executed" in (tmp_path / "lab" / "a.ipynb").read_text(), "a copy keeps its outputs"


def test_the_server_starts_at_the_first_copy_and_asks_nothing(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def call(command: list[str], env: dict[str, str]) -> int:
        page = Path(env["JUPYTER_CONFIG_PATH"].split(":")[0]) / "labconfig" / "page_config.json"
        started.append((command, json.loads(page.read_text())))
        return 0

    monkeypatch.setattr(lab, "notebook_folder", lambda: folders[0])
    monkeypatch.setattr(lab, "until_interrupted", call)
    assert lab.open_lab() == 0
    ((command, page),) = started
    assert command[3] == str(folders[0].parent), "the root is served, so that ../figures is below it"
    assert f"--LabApp.default_url=/lab/tree/lab/{lab.FIRST}" in command
    assert page == {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


def test_the_first_notebook_exists() -> None:
    assert (notebooks.notebook_folder() / lab.FIRST).exists()


def test_a_folder_that_cannot_be_written_is_named(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, copies: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lab, "notebook_folder", lambda: folders[0])
    monkeypatch.setattr(lab, "refresh", refuse)
    with pytest.raises(ValueError, match=r"cannot write copies of the notebooks to .*lab: .*Permission denied"):
        lab.open_lab()
