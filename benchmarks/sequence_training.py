"""Training of stage 2 against its peers: targets per second of SASRec, and the cost of reweighting per step."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW

from bbqrec_core import RecommenderConfig, SequenceModel, Sequences
from bbqrec_core.dataset import window_batches
from bbqrec_lab.datasets.synthetic import histories, random_ids
from bbqrec_lab.measure import Plan, Side, interleave
from bbqrec_lab.speed.growth import epoch_side

from .harness import Row, cost_row, gain_row, make_row, rate_row

WINDOWS = 128  # per batch, in our loop and in the plain loop


class PlainSasRec(nn.Module):
    """The simplest implementation: library layers, windows padded to full length, logits at each position."""

    def __init__(self, items: int, config: RecommenderConfig) -> None:
        super().__init__()
        width = config.width
        self.items = nn.Embedding(items + 1, width, padding_idx=0)
        self.position = nn.Embedding(config.max_events, width)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, config.dropout, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout, self.width = nn.Dropout(config.dropout), width

    def forward(self, rows: Tensor) -> Tensor:
        """The mean loss over all targets."""
        inputs, targets = rows[:, :-1], rows[:, 1:]
        mask = nn.Transformer.generate_square_subsequent_mask(inputs.shape[1])
        x = self.dropout(self.items(inputs) * self.width**0.5 + self.position.weight[: inputs.shape[1]])
        logits = self.blocks(x, mask=mask) @ self.items.weight[1:].T
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten() - 1, ignore_index=-1)

    @torch.no_grad()
    def copy(self, model: SequenceModel) -> None:
        """Copy our weights."""
        self.items.weight.copy_(model.items.weight)
        self.position.weight.copy_(model.position.weight)
        self.blocks.norm.load_state_dict(model.blocks.norm.state_dict())
        names = {"norm1": "norm_attention", "norm2": "norm_forward", "linear1": "up", "linear2": "down"}
        for mine, theirs in zip(self.blocks.layers, model.blocks.blocks, strict=True):
            for own, other in names.items():
                getattr(mine, own).load_state_dict(getattr(theirs, other).state_dict())
            mine.self_attn.in_proj_weight.copy_(theirs.qkv.weight)
            mine.self_attn.in_proj_bias.copy_(theirs.qkv.bias)
            mine.self_attn.out_proj.load_state_dict(theirs.out.state_dict())


def _plain_epoch(model: PlainSasRec, optimizer: AdamW, batches: list[Tensor]) -> None:
    """The plain training loop over batches."""
    model.train()
    for rows in batches:
        loss = model(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _full_length(sequences: Sequences, length: int) -> list[Tensor]:
    """The last `length` + 1 events of each user, in the order of users, padded with zeros on the right."""
    table = np.zeros((len(sequences.offsets) - 1, length + 1), np.int64)
    for user, (start, end) in enumerate(zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)):
        table[user, : end - start] = sequences.items[start:end]
    return list(torch.from_numpy(table).split(WINDOWS))


def sasrec(plan: Plan) -> list[Row]:
    """Epochs of SASRec on the same events, with 6,000 and 50,000 items, by our loop, RecBole's and a plain loop."""
    return [row for items in (6_000, 50_000) for row in _sasrec(plan, plan.size(items, 300))]


def _sasrec(plan: Plan, items: int) -> list[Row]:
    from . import recbole_side  # RecBole is installed only in its own environment

    config = RecommenderConfig(output="items")
    events = histories(plan.size(640, 60), items, mean=20, longest=config.max_events + 3)
    kept = np.ones(len(events.items), bool)  # leave-one-out: the last two events are held out
    kept[events.offsets[1:] - 1] = kept[events.offsets[1:] - 2] = False
    train = Sequences(events.offsets - 2 * np.arange(len(events.offsets)), events.items[kept])
    peer = recbole_side.build(events, items)
    torch.manual_seed(0)
    model, plain = SequenceModel(items, None, config), PlainSasRec(items, config)
    ours = epoch_side(model, window_batches(train, config.max_events, WINDOWS, (0, 0)))
    full, optimizer = _full_length(train, config.max_events), AdamW(plain.parameters(), lr=1e-3)
    sides = {
        "ours": ours,
        "recbole": Side(lambda: peer.trainer._train_epoch(peer.train, 0), len(peer.train.dataset)),
        "plain": Side(lambda: _plain_epoch(plain, optimizer, full), ours.amount),
    }
    if len(peer.train.dataset) != ours.amount:
        raise ArithmeticError(f"targets per epoch differ: ours {ours.amount}, RecBole's {len(peer.train.dataset)}")
    equal = _equal_losses(model, plain, full[0])
    seconds = interleave(sides, plan)
    work = f"SASRec, {items:,} items, width {config.width}, {config.layers} layers, full softmax, histories of 2 to 51"
    count = f"{ours.amount:,} targets per epoch in both"
    rows = [
        rate_row(work, peer_name, "targets", (ours, sides[name]), (seconds["ours"], seconds[name]), aim, checked)
        for name, peer_name, aim, checked in (
            ("recbole", "RecBole 1.2.1 with defaults, one target per sequence", ">= 3", count),
            ("plain", f"plain loop over all positions, {WINDOWS} windows per batch", ">= 1.3", equal),
        )
    ]
    read = sum(int((part[:, :-1] > 0).sum()) for part in window_batches(train, config.max_events, WINDOWS, (0, 0)))
    padded = len(peer.train.dataset) * config.max_events  # RecBole pads each sequence to full length
    mine, theirs = read / seconds["ours"], padded / seconds["recbole"]
    note = "counts padded positions: RecBole reads a padded history once per target; no aim"
    return [*rows, make_row(work, rows[0].peer, "positions read/s", mine, theirs, mine / theirs, "", note)]


@torch.no_grad()
def _equal_losses(model: SequenceModel, plain: PlainSasRec, rows: Tensor) -> str:
    """Compare both losses of one batch at equal weights."""
    plain.copy(model)
    ours, theirs = float(model.eval().loss(rows)["loss"]), float(plain.eval()(rows))
    if abs(ours - theirs) > 1e-4 * theirs:
        raise ArithmeticError(f"equal weights gave different losses: ours {ours}, the plain loop's {theirs}")
    return f"losses {ours:.5f} and {theirs:.5f}"


def reweighting(plan: Plan) -> list[Row]:
    """Training steps on histories of 50 events with and without reweighting; everything else is equal."""
    items, steps = plan.size(6_000, 200), plan.size(60, 4)
    sides, losses, config = {}, {}, RecommenderConfig()
    ids = random_ids(items, 3, 128)
    rng = np.random.default_rng(0)
    users = config.batch_events // config.max_events
    batches = [torch.from_numpy(rng.integers(1, items + 1, (users, config.max_events + 1))) for _ in range(steps)]
    for name in (False, True):
        torch.manual_seed(0)
        model = SequenceModel(items, ids, RecommenderConfig(reweight=name))
        losses[name] = float(model.eval().loss(batches[0])["loss"].detach())
        sides[name] = epoch_side(model, batches)
    if losses[True] != losses[False]:
        raise ArithmeticError(f"zero offsets changed the loss: {losses}")
    seconds = interleave(sides, plan)
    channels, checked = len(model.reweighting.channels), f"both losses at zero offsets are {losses[True]:.5f}"
    work = f"training step with reweighting, {users} histories of {config.max_events}, {channels} channels"
    milliseconds = [1000 * seconds[name] / steps for name in (True, False)]
    return [cost_row(work, "the same model without", "ms", *milliseconds, "<= 1.15", checked)]


def precision(plan: Plan) -> list[Row]:
    """Training steps of SASRec whose softmax multiplies in bfloat16, against float32, with 1,700 and 12,000 items."""
    return [_precision(plan, plan.size(items, 200)) for items in (1_700, 12_000)]


def _precision(plan: Plan, items: int) -> Row:
    steps, sides, losses = plan.size(30, 4), {}, {}
    rng, config = np.random.default_rng(0), RecommenderConfig(output="items")
    users = config.batch_events // config.max_events
    batches = [torch.from_numpy(rng.integers(1, items + 1, (users, config.max_events + 1))) for _ in range(steps)]
    for name in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = SequenceModel(items, None, RecommenderConfig(output="items", precision=name))
        losses[name] = float(model.eval().loss(batches[0])["loss"].detach())
        sides[name] = epoch_side(model, batches)
    seconds = interleave(sides, plan)
    milliseconds = [1000 * seconds[name] / steps for name in ("bf16", "fp32")]
    work = f"training step of SASRec in bf16, {items:,} items, {users} histories of {config.max_events}"
    checked = f"losses {losses['bf16']:.5f} and {losses['fp32']:.5f} at equal weights"
    return gain_row(work, "the same in fp32", "ms", *milliseconds, "", checked)
