"""Stage 1, the model: encoders, shared quantizer and every term of the dual-aligned loss (method.md)."""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..config import TokenizerConfig
from ..kernels import mean_square, softmax_loss
from ..transformer import INIT_STD, Transformer, causal_mask
from .quantizer import Quantized, ResidualQuantizer

LOG_VARIANCE = 3.0  # bound of the variational Gaussian's log-variance; unbounded, CLUB's contrast diverges


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers with a ReLU between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def scale_to_sqrt_width(vectors: Float[Tensor, "*S E"]) -> Float[Tensor, "*S E"]:
    """Scale vectors to length sqrt(E), so that a coordinate is of size 1 whatever E is; zero stays zero."""
    return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5


def masked_mean(values: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Mean over the true entries of `mask`; 0 where there is none."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def info_nce(first: Float[Tensor, "R E"], second: Float[Tensor, "R E"], temperature: float) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of matching rows by cosine, in nats."""
    logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / temperature
    own = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class Parts(NamedTuple):
    """Items taken apart: `signals` (R, S, E), which are `present` (R, S), and `specific` parts (R, M, W)."""

    signals: Float[Tensor, "R S E"]
    present: Bool[Tensor, "R S"]
    specific: Float[Tensor, "R M W"]


class Standardise(nn.Module):
    """Centre and scale every signal over the items that have it, then give each vector length sqrt(E).

    Signals that keep offsets of their own fall into different regions of the shared codebook, and a fused ID is left
    with a part of its codes; without an offset, a code can mean the same in every signal.

    Args: signals, width: S, E. Choice: moving statistics as in batch normalisation, momentum 0.1, no affine part.
    """

    def __init__(self, signals: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(signals, width))
        self.register_buffer("variance", torch.ones(signals, width))

    def forward(self, signals: Float[Tensor, "R S E"], present: Bool[Tensor, "R S"]) -> Float[Tensor, "R S E"]:
        """Standardised signals: by the statistics of this batch in training, else by the moving ones."""
        mean, variance = self.mean, self.variance
        if self.training:
            weight = present[..., None] / present.sum(0)[:, None].clamp_min(1)  # (R, S, 1)
            seen = (present.sum(0) > 1)[:, None]  # of one vector, the deviation is 0: the moving statistics serve
            mean = torch.where(seen, (weight * signals).sum(0), self.mean)
            variance = torch.where(seen, (weight * (signals - mean).square()).sum(0), self.variance)
            with torch.no_grad():
                self.mean.copy_(torch.where(seen, self.mean.lerp(mean, 0.1), self.mean))
                self.variance.copy_(torch.where(seen, self.variance.lerp(variance, 0.1), self.variance))
        return scale_to_sqrt_width((signals - mean) / (variance + 1e-5).sqrt())


class Variational(nn.Module):
    """The Gaussian q(s | b) of CLUB for one modality; `forward` gives log q per pair, up to its constant, in nats."""

    def __init__(self, behaviour: int, specific: int, hidden: int) -> None:
        super().__init__()
        self.net = mlp(behaviour, hidden, 2 * specific)

    def forward(self, specific: Float[Tensor, "R W"], behaviour: Float[Tensor, "R E"]) -> Float[Tensor, "R"]:
        mean, raw = self.net(behaviour).chunk(2, dim=-1)
        log_variance = LOG_VARIANCE * torch.tanh(raw)
        return -0.5 * ((specific - mean).square() / log_variance.exp() + log_variance).sum(-1)


class Tokenizer(nn.Module):
    """Encoders, shared residual quantizer, decoders and the light history encoder of stage 1.

    Args: features: modality -> (N+1, d_m) scaled features, row 0 zero. presence: modality -> (N+1,).
        counts: training events per item row, (N+1,). config: sizes, switches and weights.
    Source: method.md, stage 1; arXiv 2504.06636 for dual encoders, CLUB, shared codebook and both contrasts.
    """

    def __init__(
        self,
        features: dict[str, Float[Tensor, "N d"]],
        presence: dict[str, Bool[Tensor, "N"]],
        counts: Int[Tensor, "N"],
        config: TokenizerConfig,
    ) -> None:
        super().__init__()
        self.config, self.modalities = config, tuple(features)
        if not self.modalities and not config.id_signal:
            raise ValueError("the tokenizer has no signal: the data have no modality and id_signal is False")
        width, narrow, hidden = config.code_width, config.specific_width * config.specific, config.hidden
        dims = {name: array.shape[1] for name, array in features.items()}
        for name, array in features.items():
            self.register_buffer(f"feature_{name}", array, persistent=False)
        present = [presence[name] for name in self.modalities] + [counts > 0] * config.id_signal
        self.register_buffer("present", torch.stack(present, -1), persistent=False)  # (N+1, S)
        self.register_buffer("counts", counts, persistent=False)
        self.behaviour = nn.ModuleDict({name: mlp(dim, hidden, width) for name, dim in dims.items()})
        self.decoders = nn.ModuleDict({name: mlp(narrow + width, hidden, dim) for name, dim in dims.items()})
        if config.specific:
            self.specific = nn.ModuleDict({name: mlp(dim, hidden, narrow) for name, dim in dims.items()})
            self.variational = nn.ModuleDict({name: Variational(width, narrow, hidden) for name in dims})
        if config.id_signal:
            self.id_signal = nn.Embedding(len(counts), width)
            nn.init.normal_(self.id_signal.weight, std=INIT_STD)  # from N(0, 1) few steps leave its noise in every ID
        if config.normalise:
            self.standardise = Standardise(len(self.signals), width)
        self.gates = nn.Parameter(torch.zeros(len(self.signals)))
        self.quantizer = self.make_quantizer()
        self.encoder = Transformer(1, width, heads=1, dropout=0.1)
        self.position = nn.Embedding(config.max_events, width)

    def make_quantizer(self) -> nn.Module:
        """The one codebook of all signals."""
        config = self.config
        return ResidualQuantizer(
            config.levels,
            config.codes,
            config.code_width,
            commitment=config.commitment,
            gradient=config.gradient,
            ema_decay=config.ema_decay if config.codebook_update == "ema" else None,
            revive_every=config.revive_every,
        )

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the behaviour signals: the modalities, then `id`."""
        return self.modalities + ("id",) * self.config.id_signal

    def features(self, rows: Int[Tensor, "R"]) -> dict[str, Float[Tensor, "R d"]]:
        """Frozen features of item rows, by modality."""
        tables = {name: getattr(self, f"feature_{name}") for name in self.modalities}
        return {name: table.index_select(0, rows) for name, table in tables.items()}  # a third of indexing's time

    def parts(self, rows: Int[Tensor, "R"]) -> Parts:
        """Behaviour signals and specific parts of item rows; mask what an item lacks (present = False)."""
        features = self.features(rows)
        return Parts(self.signal_vectors(rows, features), self.present[rows], self.specific_vectors(rows, features))

    def signal_vectors(
        self, rows: Int[Tensor, "R"], features: dict[str, Float[Tensor, "R d"]] | None = None
    ) -> Float[Tensor, "R S E"]:
        """Behaviour part of each modality, then the ID signal, standardised if signals are normalised.

        Args: features: of these rows, where they are at hand.
        """
        features = self.features(rows) if features is None else features
        signals = [self.behaviour[name](features[name]) for name in self.modalities]
        if self.config.id_signal:
            signals.append(self.id_signal(rows))
        stacked = torch.stack(signals, 1)
        return self.standardise(stacked, self.present[rows]) if self.config.normalise else stacked

    def specific_vectors(
        self, rows: Int[Tensor, "R"], features: dict[str, Float[Tensor, "R d"]] | None = None
    ) -> Float[Tensor, "R M W"]:
        """Modality-specific parts, each of length sqrt(W), of width 0 where there are none; as `signal_vectors`."""
        if not (self.config.specific and self.modalities):
            return self.gates.new_zeros(len(rows), len(self.modalities), 0)
        features = self.features(rows) if features is None else features
        return torch.stack([scale_to_sqrt_width(self.specific[name](features[name])) for name in self.modalities], 1)

    def units(
        self, signals: Float[Tensor, "R S E"], present: Bool[Tensor, "R S"]
    ) -> tuple[Float[Tensor, "R U E"], Bool[Tensor, "R U"]]:
        """What is quantized: every signal and, where there are several, their gated mean behind them."""
        if signals.shape[1] == 1:
            return signals, present
        weight = self.gates.masked_fill(~present, float("-inf")).softmax(-1).nan_to_num(0.0)
        fused = (weight[..., None] * signals).sum(1)
        fused = scale_to_sqrt_width(fused) if self.config.normalise else fused
        return torch.cat([signals, fused[:, None]], 1), torch.cat([present, present.any(1, keepdim=True)], 1)

    def quantized_items(self, vectors: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]) -> Float[Tensor, "R E"]:
        """One quantized vector an item: of its gated mean, or of its only signal."""
        return vectors[:, -1] if vectors.shape[1] > 1 else vectors[:, 0] * present

    def quantize(self, units: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]) -> Quantized:
        """The units of items through the quantizer."""
        return self.quantizer(units)

    def encode(
        self, units: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]
    ) -> tuple[Quantized, Int[Tensor, "R L"], Float[Tensor, "L K E"]]:
        """All units quantized, the codes that make the items' IDs, and the codebook of each of their positions."""
        seen = self.quantize(units, present)
        return seen, seen.codes[:, -1], self.quantizer.codebook

    def losses(
        self,
        item_ids: Int[Tensor, "B T"],
        drawn: Int[Tensor, "R"],
        learn: bool = True,
        fit_variational: Callable[[Parts], None] | None = None,
    ) -> dict[str, Tensor]:
        """All parts of the stage-1 loss (method.md, 1.6).

        Args: item_ids: training windows, 0 pads, for the sequence term. drawn: item rows drawn uniformly, for the terms
            on single items, which a popular item must not rule. learn: update moving averages and code usage.
            fit_variational: the inner steps of q(s|b)'s own optimiser on these items, before CLUB uses q.
        """
        config, count = self.config, len(drawn)
        rows, grid = drawn, None
        if config.w_seq:
            walked, grid = item_ids.unique(return_inverse=True)
            rows, grid = torch.cat([drawn, walked]), grid + count
        features = self.features(rows)
        signals = self.signal_vectors(rows, features)
        units, present = self.units(signals, self.present[rows])
        seen = self.quantize(units, present)
        if learn:
            self.quantizer.observe(seen, present)
        items = self.quantized_items(seen.vectors, present)
        features = {name: array[:count] for name, array in features.items()}
        specific = self.specific_vectors(drawn, features)
        parts = Parts(signals[:count], present[:count, : len(self.signals)], specific)
        out = {"quantization": masked_mean(seen.loss, present)}
        if self.modalities:
            out["reconstruction"] = self.reconstruction(features, parts, seen.vectors[:count], items[:count])
        if config.specific and self.modalities and config.w_mi:
            if fit_variational is not None:
                fit_variational(parts)
            out["mutual_information"] = config.w_mi * self.mutual_information(parts)
        if config.w_cross and len(self.signals) > 1:
            out["cross_modal"] = config.w_cross * self.cross_modal(seen.vectors[:count], parts.present)
        if config.w_seq:
            out["sequence"] = config.w_seq * self.sequence(item_ids, grid, rows, items)
        out |= self.more_losses(drawn, items[:count], seen, present)
        return {"loss": sum(out.values()), **out}

    def more_losses(
        self, drawn: Int[Tensor, "R"], items: Float[Tensor, "R E"], seen: Quantized, present: Bool[Tensor, "P U"]
    ) -> dict[str, Tensor]:
        """Terms that a subclass adds, of the drawn items' quantized vectors and of all units: none here."""
        return {}

    def reconstruction(
        self, features: dict[str, Tensor], parts: Parts, vectors: Float[Tensor, "R U E"], items: Float[Tensor, "R E"]
    ) -> Float[Tensor, ""]:
        """Squared error of features rebuilt from [s; q(b)], and from the ID's vector alone (w_codes_only)."""
        config, total, present, shown = self.config, vectors.new_zeros(()), parts.present, parts.specific
        dropped = config.specific_dropout * config.specific * self.training  # share of items, whose s is left out
        if dropped:
            shown = shown * (torch.rand(len(items), 1, 1, device=items.device) >= dropped)
        for index, name in enumerate(self.modalities):
            target, specific = features[name], shown[:, index]
            both = self.decoders[name](torch.cat([specific, vectors[:, index]], -1))
            total = total + masked_mean(mean_square(both - target), present[:, index])
            if (config.specific or vectors.shape[1] > 1) and config.w_codes_only:  # else it is the same term again
                alone = self.decoders[name](torch.cat([torch.zeros_like(specific), items], -1))
                error = masked_mean(mean_square(alone - target), present[:, index])
                total = total + config.w_codes_only * error
        return total / len(self.modalities)

    def mutual_information(self, parts: Parts) -> Tensor:
        """CLUB's contrast log q(s_i|b_i) - log q(s_j|b_i), j a random other item, mean over modalities, nats per width.

        Source: Cheng et al. 2020 (CLUB), equation 12 (sampled). A penalty, not an estimate: see method.md, 1.1.
        Choice: gradient reaches b alone. Given both, the penalty empties s, which is the easier way down, and b keeps
        the noise; s, too narrow for anything beside it, then holds what the codes cannot tell the decoder.
        """
        total = parts.signals.new_zeros(())
        for index, name in enumerate(self.modalities):
            here = parts.present[:, index].nonzero().squeeze(-1)
            behaviour, specific = parts.signals[here, index], parts.specific[here, index].detach()
            other = specific.roll(int(torch.randint(1, max(len(here), 2), ())), 0)  # items are drawn in random order
            gap = self.variational[name](specific, behaviour) - self.variational[name](other, behaviour)
            total = total + gap.sum() / max(len(here), 1) / max(specific.shape[-1], 1)
        return total / len(self.modalities)

    def variational_loss(self, parts: Parts) -> Tensor:
        """Negative log-likelihood that q(s|b)'s own optimiser lowers; no gradient reaches the encoders."""
        total = parts.signals.new_zeros(())
        for index, name in enumerate(self.modalities):
            likelihood = self.variational[name](parts.specific[:, index].detach(), parts.signals[:, index].detach())
            total = total - masked_mean(likelihood, parts.present[:, index])
        return total

    def cross_modal(self, vectors: Float[Tensor, "R U E"], present: Bool[Tensor, "R S"]) -> Tensor:
        """InfoNCE between the quantized signals of one item, symmetric, mean over pairs of signals, in nats."""
        losses = []
        for i, j in combinations(range(len(self.signals)), 2):
            both = (present[:, i] & present[:, j]).nonzero().squeeze(-1)
            if len(both) > 1:
                losses.append(info_nce(vectors[both, i], vectors[both, j], self.config.temperature))
        return torch.stack(losses).mean() if losses else vectors.new_zeros(())

    def sequence(self, item_ids: Tensor, grid: Tensor, rows: Tensor, items: Float[Tensor, "R E"]) -> Tensor:
        """Cross-entropy of each window's next item among the batch's distinct targets, popularity corrected, in nats.

        Args: item_ids: (B, T) windows; grid: where each entry stands in `rows`; items: (R, E) quantized vectors.
        Choice: distinct targets as candidates mask duplicates of the positive; logQ is the log of a candidate's chance
        to be among a batch's targets.
        """
        inputs, length = items[grid[:, :-1]], grid.shape[1] - 1
        states, _ = self.encoder(inputs + self.position.weight[:length], [causal_mask(length, items.device)])
        real = item_ids[:, 1:] > 0
        candidates, target = grid[:, 1:][real].unique(return_inverse=True)
        share = self.counts[rows[candidates]] / self.counts.sum()
        log_q = torch.log1p(-((1 - share).clamp_max(1 - 1e-7) ** int(real.sum())).clamp_max(1 - 1e-7))
        asked = F.normalize(states[real], dim=-1) / self.config.temperature  # divided here: the logits are far larger
        return softmax_loss(asked, F.normalize(items[candidates], dim=-1), target, -log_q.to(asked))
