"""Laws of the progress bar: one an epoch, at its place, with the mean loss so far, the best score and the time left."""

import io
import os
import sys

import pytest

from bbqrec_core.training import Progress
from bbqrec_lab.experiments import training_bar
from bbqrec_lab.experiments.training_bar import TrainingBar


class Recorded:
    """A bar that notes what it is told and, like tqdm between two refreshes, does not count along."""

    made: list["Recorded"]

    def __init__(self, total, desc, **options):
        self.total, self.desc, self.options = total, desc, options
        self.shown, self.steps, self.closed = [], 0, False
        self.made.append(self)

    def set_postfix(self, loss, refresh):
        assert not refresh
        self.shown.append(loss)

    def update(self):
        self.steps += 1

    def close(self):
        self.closed = True


@pytest.fixture
def bars(monkeypatch):
    Recorded.made = []
    monkeypatch.setattr(training_bar, "tqdm", Recorded)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    return Recorded.made


def test_every_epoch_has_a_bar_that_shows_the_mean_loss_so_far(bars):
    bar = TrainingBar()
    for epoch in (1, 2):
        for step in (1, 2, 3):
            bar(Progress("noisy", epoch, 2, step, 3, epoch + step / 8, None, 0.0))
            assert not any(made.closed for made in bars[epoch - 1 :]) or step == 3
    assert [made.total for made in bars] == [3, 3]
    assert [made.steps for made in bars] == [3, 3]
    assert [made.shown for made in bars] == [["1.125", "1.250", "1.375"], ["2.125", "2.250", "2.375"]]
    assert all(made.closed for made in bars)
    assert all(made.options["file"] is sys.stderr for made in bars)


def test_the_label_names_the_epoch_the_best_score_and_the_time_left(bars):
    bar = TrainingBar()
    for epoch, best, seconds in ((1, None, 0.0), (2, None, 60.0), (3, 0.25, 120.0)):
        bar(Progress("sasrec", epoch, 4, 1, 1, 1.0, best, seconds))
    assert [made.desc for made in bars] == [
        "sasrec epoch 1/4",
        "sasrec epoch 2/4, at most 3.0 min left",
        "sasrec epoch 3/4, best 0.2500, at most 2.0 min left",
    ]


@pytest.mark.parametrize(("seconds", "lines"), [(30.0, 0), (0.0, 2)])
def test_without_a_terminal_there_is_a_plain_line_now_and_then(monkeypatch, seconds, lines):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(training_bar, "SECONDS", seconds)
    bar = TrainingBar()
    for step in (1, 2):
        bar(Progress("noisy", 1, 1, step, 2, 1.0, None, 0.0))
    assert out.getvalue().splitlines() == [f"noisy epoch 1/1, step {step}/2, loss 1.000" for step in (1, 2)][:lines]


TRAIN = """
from bbqrec_core.training import Progress
from bbqrec_lab.experiments import training_bar

def train():
    training_bar.SECONDS = training_bar.REDRAW = 0.0
    bar = training_bar.TrainingBar()
    for name in ("offsets", "sasrec"):
        for epoch in (1, 2):  # of 4: it stops early
            for step in (1, 2, 3):
                bar(Progress(name, epoch, 4, step, 3, epoch / 4, 0.25, 1.0))

train()
"""


@pytest.fixture(scope="module", params=["PYTEST_CURRENT_TEST", ""])
def kernel(request, tmp_path_factory):
    """A kernel, its client, and the file of its standard error; with the variable, the kernel watches no stream."""
    from jupyter_client.manager import start_new_kernel

    path = tmp_path_factory.mktemp("kernel") / "stderr"
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment |= {request.param: "yes"} if request.param else {}
    with path.open("w") as out:
        manager, client = start_new_kernel(stderr=out, kernel_name="python3", env=environment)
        yield client, path
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def outputs(client, metadata):
    """Run the training in a kernel and return the messages of its outputs, as (type, content)."""
    content = {"code": TRAIN, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
    message = client.session.msg("execute_request", content | {"user_expressions": {}}, metadata=metadata)
    client.shell_channel.send(message)
    found = []
    while True:
        one = client.get_iopub_msg(timeout=60)
        if one["parent_header"].get("msg_id") != message["header"]["msg_id"]:
            continue
        if one["msg_type"] == "status" and one["content"]["execution_state"] == "idle":
            return found
        found.append((one["msg_type"], one["content"]))


def test_a_notebook_in_a_frontend_has_a_bar_with_loss_and_time_left_and_keeps_one_line(kernel):
    client, _ = kernel
    found = outputs(client, {"cellId": "a"})
    assert not [content for kind, content in found if kind in ("stream", "error")]
    shown = [content for kind, content in found if kind == "display_data"]
    assert len(shown) == 2
    assert all("application/vnd.jupyter.widget-view+json" in content["data"] for content in shown)
    states = [content["data"].get("state", {}) for kind, content in found if kind.startswith("comm_")]
    texts = [state["value"] for state in states if isinstance(state.get("value"), str) and state["value"]]
    assert any(text.startswith("sasrec: epoch 1/4, loss 0.250, best 0.2500") for text in texts), texts
    assert any(text.endswith("at most 0 s left") for text in texts), texts
    ends = {content["transient"]["display_id"]: content["data"] for kind, content in found if "update" in kind}
    assert list(ends) == [content["transient"]["display_id"] for content in shown]
    assert all(list(data) == ["text/plain"] for data in ends.values()), "no widget is left that would need a kernel"
    assert list(ends.values())[1]["text/plain"].startswith("sasrec: 2 of 4 epochs in 0 s, loss 0.500, best 0.2500")
    assert len([kind for kind, _ in found if kind == "comm_close"]) >= 6


def test_papermill_leaves_nothing_in_the_notebook_and_lines_in_the_log(kernel):
    client, path = kernel
    found = outputs(client, {})
    assert [one for one in found if one[0] not in ("status", "execute_input")] == []
    lines = [line for line in path.read_text().splitlines() if " epoch " in line]
    assert len(lines) == 12
    assert lines[-1] == "sasrec epoch 2/4, best 0.2500, at most 0.1 min left, step 3/3, loss 0.500"
