"""A set encoder: the recommender of the core without positions, which predicts what else is in a basket."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec_core import SequenceModel
from bbqrec_core.dataset import item_rows

LEAST, MOST = 0.3, 0.9  # share of a basket that is shown in training, drawn anew for each basket


class SetModel(SequenceModel):
    """The transformer of the core for sets: every item attends to every other, and the state is the mean over items.

    The order of the items changes nothing: there are no positions, no lags and no causal mask. In training a random
    part of a basket is shown, and each hidden item is a target. The reweighting by similarity works as before, since it
    compares pairs of items.

    Args: those of `SequenceModel`; the settings must switch off all that reads an order, see `baskets.set_settings`.
    Raises: ValueError for settings with a lag bias, or with score reweighting, whose weights fall with each step back.
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        if self.config.lag_bias or self.config.score_reweight:
            raise ValueError("a set has no order: set lag_bias=False and score_reweight=False")
        self.position.requires_grad_(False)

    def positions(self, length: int) -> Float[Tensor, "T D"]:
        """Zeros: no item has a position."""
        return self.position.weight.new_zeros(length, self.config.width)

    def biases(self, item_ids: Int[Tensor, "B T"], last: Int[Tensor, "B"] | None = None) -> list[Tensor]:
        """What is added to the attention logits: padding is hidden, and the reweighting, without a causal mask."""
        hidden = torch.zeros(item_ids.shape, device=item_ids.device).masked_fill(item_ids == 0, -torch.inf)
        mask = hidden[:, None, None, :].expand(-1, -1, item_ids.shape[1], -1)
        if self.reweighting is None:
            return [mask] * self.config.layers
        return [mask + offset for offset in self.reweighting(item_ids)]

    def last_states(self, item_ids: Int[Tensor, "B T ..."]) -> Float[Tensor, "B D"]:
        """The state of each basket: the mean over its items, of which there is at least one."""
        items = item_rows(item_ids)
        real = (items > 0)[..., None]
        return (self.states(items)[0] * real).sum(1) / real.sum(1)

    def loss(self, rows: Int[Tensor, "B T ..."]) -> dict[str, Tensor]:
        """Mean loss in nats of the hidden items of every basket, of their codes or of the items."""
        items = item_rows(rows)
        shown = show_some(items)
        row, column = ((items > 0) & ~shown).nonzero(as_tuple=True)
        states, targets = self.last_states(torch.where(shown, items, 0))[row], items[row, column]
        if self.head is None:
            return {"loss": self.item_loss(states, targets)}
        return {"loss": -self.head(states, self.vectors.node[targets]).mean()}


def show_some(items: Int[Tensor, "B T"]) -> Tensor:
    """Which items of every basket are shown, (B, T): a random share, at least one, and not all of two or more."""
    share = LEAST + (MOST - LEAST) * torch.rand(len(items), 1, device=items.device)
    draw = torch.rand(items.shape, device=items.device).masked_fill(items == 0, 2.0)
    size = (items > 0).sum(1, keepdim=True)
    count = (size * share).long().clamp_min(1)
    return draw.argsort(1).argsort(1) < count
