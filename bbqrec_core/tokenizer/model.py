"""The model of stage 1: encoders, shared quantizer, and all loss terms."""

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

LOG_VARIANCE = 3.0  # bound of the log-variance of the variational Gaussian; without it CLUB's contrast diverges


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def scale_to_sqrt_width(vectors: Float[Tensor, "*S E"]) -> Float[Tensor, "*S E"]:
    """Scale vectors to length sqrt(E), so coordinates have size 1 for any E; zero stays zero."""
    return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5


def masked_mean(values: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Mean over the true entries of `mask`; 0 if there is none."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def info_nce(first: Float[Tensor, "R E"], second: Float[Tensor, "R E"], temperature: float) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of matching rows by cosine, in nats."""
    logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / temperature
    own = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class Parts(NamedTuple):
    """Behaviour `signals` of items (R, S, E), whether they are `present` (R, S), and `specific` parts (R, M, W)."""

    signals: Float[Tensor, "R S E"]
    present: Bool[Tensor, "R S"]
    specific: Float[Tensor, "R M W"]


class Standardise(nn.Module):
    """Standardise each signal over the items that have it, then scale each vector to length sqrt(E).

    With different offsets, signals use different regions of the shared codebook and fused IDs use only a part of it.
    Without offsets, a code can have the same meaning in every signal.

    Args: signals, width: S, E. Choice: moving statistics as in batch normalisation, momentum 0.1, no affine part.
    """

    def __init__(self, signals: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(signals, width))
        self.register_buffer("variance", torch.ones(signals, width))

    def forward(self, signals: Float[Tensor, "R S E"], present: Bool[Tensor, "R S"]) -> Float[Tensor, "R S E"]:
        """Standardise with the statistics of the batch in training, else with the moving ones."""
        mean, variance = self.mean, self.variance
        if self.training:
            weight = present[..., None] / present.sum(0)[:, None].clamp_min(1)  # (R, S, 1)
            seen = (present.sum(0) > 1)[:, None]  # one vector has no deviation: use the moving statistics
            mean = torch.where(seen, (weight * signals).sum(0), self.mean)
            variance = torch.where(seen, (weight * (signals - mean).square()).sum(0), self.variance)
            with torch.no_grad():
                self.mean.copy_(torch.where(seen, self.mean.lerp(mean, 0.1), self.mean))
                self.variance.copy_(torch.where(seen, self.variance.lerp(variance, 0.1), self.variance))
        return scale_to_sqrt_width((signals - mean) / (variance + 1e-5).sqrt())


class Variational(nn.Module):
    """The Gaussian q(s | b) of CLUB for one modality; `forward` gives log q per pair in nats, up to a constant."""

    def __init__(self, behaviour: int, specific: int, hidden: int) -> None:
        super().__init__()
        self.net = mlp(behaviour, hidden, 2 * specific)

    def forward(self, specific: Float[Tensor, "R W"], behaviour: Float[Tensor, "R E"]) -> Float[Tensor, "R"]:
        mean, raw = self.net(behaviour).chunk(2, dim=-1)
        log_variance = LOG_VARIANCE * torch.tanh(raw)
        return -0.5 * ((specific - mean).square() / log_variance.exp() + log_variance).sum(-1)


class Tokenizer(nn.Module):
    """Encoders, shared residual quantizer, decoders and the small history encoder of stage 1.

    Args: features: by modality, scaled, row 0 zero. counts: training events per item row.
    Source: arXiv 2504.06636 for dual encoders, CLUB, shared codebook, and the contrastive losses `cross_modal` and
        `sequence`, which bind the codes to behaviour.
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
        width, hidden = config.code_width, config.hidden
        narrow = config.specific_width if config.specific else 0
        dims = {name: array.shape[1] for name, array in features.items()}
        for name, array in features.items():
            self.register_buffer(f"feature_{name}", array, persistent=False)
        present = [counts > 0 if name == "id" else presence[name] for name in self.signals]
        self.register_buffer("present", torch.stack(present, -1), persistent=False)  # (N+1, S)
        self.register_buffer("counts", counts, persistent=False)
        self.behaviour = nn.ModuleDict({name: mlp(dim, hidden, width) for name, dim in dims.items()})
        self.decoders = nn.ModuleDict({name: mlp(narrow + width, hidden, dim) for name, dim in dims.items()})
        if config.specific:
            self.specific = nn.ModuleDict({name: mlp(dim, hidden, narrow) for name, dim in dims.items()})
            self.variational = nn.ModuleDict({name: Variational(width, narrow, hidden) for name in dims})
        if config.id_signal:
            self.id_signal = nn.Embedding(len(counts), width)
            nn.init.normal_(self.id_signal.weight, std=INIT_STD)  # few steps would not remove the noise of N(0, 1)
        if config.normalise:
            self.standardise = Standardise(len(self.signals), width)
        self.gates = nn.Parameter(torch.zeros(len(self.signals)))
        self.quantizer = self.make_quantizer()
        self.history_encoder = Transformer(1, width, heads=1, dropout=0.1)
        self.position = nn.Embedding(config.max_events, width)

    def make_quantizer(self, kind: type[ResidualQuantizer] = ResidualQuantizer) -> nn.Module:
        """The shared codebook."""
        config = self.config
        options = {name: getattr(config, name) for name in ("commitment", "ema_decay", "revive_every")}
        return kind(config.levels, config.codes, config.code_width, **options)

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the behaviour signals: the modalities, then `id`."""
        return (*self.modalities, "id") if self.config.id_signal else self.modalities

    def features(self, rows: Int[Tensor, "R"]) -> dict[str, Float[Tensor, "R d"]]:
        """Frozen features of item rows, by modality."""
        tables = {name: getattr(self, f"feature_{name}") for name in self.modalities}
        return {name: table.index_select(0, rows) for name, table in tables.items()}  # a third of the time of indexing

    def parts(self, rows: Int[Tensor, "R"]) -> Parts:
        """Behaviour signals and specific parts of item rows; use them only where `present`."""
        features = self.features(rows)
        return Parts(self.signal_vectors(rows, features), self.present[rows], self.specific_vectors(rows, features))

    def signal_vectors(self, rows: Int[Tensor, "R"], features: dict[str, Tensor]) -> Float[Tensor, "R S E"]:
        """Behaviour part of each modality, then the ID signal; standardised if configured."""
        signals = [self.behaviour[name](features[name]) for name in self.modalities]
        if self.config.id_signal:
            signals.append(self.id_signal(rows))
        stacked = torch.stack(signals, 1)
        return self.standardise(stacked, self.present[rows]) if self.config.normalise else stacked

    def specific_vectors(self, rows: Int[Tensor, "R"], features: dict[str, Tensor]) -> Float[Tensor, "R M W"]:
        """Modality-specific parts of length sqrt(W), or of width 0 without such parts."""
        if not (self.config.specific and self.modalities):
            return self.gates.new_zeros(len(rows), len(self.modalities), 0)
        return torch.stack([scale_to_sqrt_width(self.specific[name](features[name])) for name in self.modalities], 1)

    def units(
        self, signals: Float[Tensor, "R S E"], present: Bool[Tensor, "R S"]
    ) -> tuple[Float[Tensor, "R U E"], Bool[Tensor, "R U"]]:
        """The vectors to quantize: every signal and, if there are several, their gated mean as the last.

        The gates are one learned number per signal; their softmax over the present signals gives the weights.
        """
        if signals.shape[1] == 1:
            return signals, present
        weight = self.gates.masked_fill(~present, float("-inf")).softmax(-1).nan_to_num(0.0)
        fused = (weight[..., None] * signals).sum(1)
        fused = scale_to_sqrt_width(fused) if self.config.normalise else fused
        return torch.cat([signals, fused[:, None]], 1), torch.cat([present, present.any(1, keepdim=True)], 1)

    def quantized_items(self, vectors: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]) -> Float[Tensor, "R E"]:
        """The quantized vector of each item: that of its gated mean, or of its only signal."""
        return vectors[:, -1] if vectors.shape[1] > 1 else vectors[:, 0] * present

    def quantize(self, units: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]) -> Quantized:
        """Quantize the units of items."""
        return self.quantizer(units)

    def encode(
        self, units: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]
    ) -> tuple[Quantized, Int[Tensor, "R L"], Float[Tensor, "L K E"]]:
        """The quantized units, the codes of the IDs, and the codebook of each position of an ID."""
        quantized = self.quantize(units, present)
        return quantized, quantized.codes[:, -1], self.quantizer.codebook

    def losses(
        self,
        item_ids: Int[Tensor, "B T"],
        drawn: Int[Tensor, "R"],
        learn: bool = True,
        fit_variational: Callable[[Parts], None] | None = None,
    ) -> dict[str, Tensor]:
        """All terms of the loss of stage 1, weighted, and their sum under "loss".

        Args: item_ids: training windows, 0 pads, for the sequence term. drawn: item rows drawn uniformly, for the terms
            on single items, so that popular items do not dominate them. learn: update moving averages and code usage.
            fit_variational: runs the optimizer of q(s|b) on these items before CLUB uses q.
        """
        config, count = self.config, len(drawn)
        rows, grid = drawn, None
        if config.w_seq:
            events, grid = item_ids.unique(return_inverse=True)
            rows, grid = torch.cat([drawn, events]), grid + count  # the drawn items, then those of the windows
        features = self.features(rows)
        signals = self.signal_vectors(rows, features)
        units, present = self.units(signals, self.present[rows])
        quantized = self.quantize(units, present)
        if learn:
            self.quantizer.observe(quantized, present)
        items = self.quantized_items(quantized.vectors, present)
        features = {name: array[:count] for name, array in features.items()}
        specific = self.specific_vectors(drawn, features)
        parts = Parts(signals[:count], present[:count, : len(self.signals)], specific)
        out = {"quantization": masked_mean(quantized.loss, present)}
        if self.modalities:
            out["reconstruction"] = self.reconstruction(features, parts, quantized.vectors[:count], items[:count])
        if config.specific and self.modalities and config.w_mi:
            if fit_variational is not None:
                fit_variational(parts)
            out["mutual_information"] = config.w_mi * self.mutual_information(parts)
        if config.w_cross and len(self.signals) > 1:
            out["cross_modal"] = config.w_cross * self.cross_modal(quantized.vectors[:count], parts.present)
        if config.w_seq:
            out["sequence"] = config.w_seq * self.sequence(item_ids, grid, rows, items)
        out |= self.more_losses(drawn, items[:count], quantized, present)
        return {"loss": sum(out.values()), **out}

    def more_losses(
        self, drawn: Int[Tensor, "R"], items: Float[Tensor, "R E"], quantized: Quantized, present: Bool[Tensor, "P U"]
    ) -> dict[str, Tensor]:
        """Extra terms of a subclass, from the quantized vectors of the drawn items and from all units."""
        return {}

    def reconstruction(
        self, features: dict[str, Tensor], parts: Parts, vectors: Float[Tensor, "R U E"], items: Float[Tensor, "R E"]
    ) -> Float[Tensor, ""]:
        """Squared error of the features decoded from [s; q(b)], and from the vector of the ID alone (w_codes_only)."""
        config, total, present, shown = self.config, vectors.new_zeros(()), parts.present, parts.specific
        if self.training and config.specific and config.specific_dropout:  # decode some items without s
            shown = shown * (torch.rand(len(items), 1, 1, device=items.device) >= config.specific_dropout)
        for index, name in enumerate(self.modalities):
            target, specific = features[name], shown[:, index]
            both = self.decoders[name](torch.cat([specific, vectors[:, index]], -1))
            total = total + masked_mean(mean_square(both - target), present[:, index])
            if (config.specific or vectors.shape[1] > 1) and config.w_codes_only:  # else both terms are equal
                alone = self.decoders[name](torch.cat([torch.zeros_like(specific), items], -1))
                error = masked_mean(mean_square(alone - target), present[:, index])
                total = total + config.w_codes_only * error
        return total / len(self.modalities)

    def mutual_information(self, parts: Parts) -> Tensor:
        """CLUB's contrast log q(s_i|b_i) - log q(s_j|b_i), j a random other item; mean over modalities, nats per width.

        Source: Cheng et al. 2020 (CLUB), equation 12 (sampled). A penalty, not an estimate: q is approximate.
        Choice: the gradient reaches b alone. With a gradient to s, the penalty would empty s and leave the noise in b;
        s is narrow and must hold what the decoder cannot get from the codes.
        """
        total = parts.signals.new_zeros(())
        for index, name in enumerate(self.modalities):
            here = parts.present[:, index].nonzero().squeeze(-1)
            behaviour, specific = parts.signals[here, index], parts.specific[here, index].detach()
            other = specific.roll(int(torch.randint(1, max(len(here), 2), ())), 0)  # the order of the items is random
            gap = self.variational[name](specific, behaviour) - self.variational[name](other, behaviour)
            total = total + gap.sum() / max(len(here), 1) / max(specific.shape[-1], 1)
        return total / len(self.modalities)

    def variational_loss(self, parts: Parts) -> Tensor:
        """Negative log-likelihood of q(s|b), without gradient to the encoders."""
        total = parts.signals.new_zeros(())
        for index, name in enumerate(self.modalities):
            likelihood = self.variational[name](parts.specific[:, index].detach(), parts.signals[:, index].detach())
            total = total - masked_mean(likelihood, parts.present[:, index])
        return total

    def cross_modal(self, vectors: Float[Tensor, "R U E"], present: Bool[Tensor, "R S"]) -> Tensor:
        """Symmetric InfoNCE between the quantized signals of the same item, mean over pairs of signals, in nats."""
        losses = []
        for i, j in combinations(range(len(self.signals)), 2):
            both = (present[:, i] & present[:, j]).nonzero().squeeze(-1)
            if len(both) > 1:
                losses.append(info_nce(vectors[both, i], vectors[both, j], self.config.temperature))
        return torch.stack(losses).mean() if losses else vectors.new_zeros(())

    def sequence(self, item_ids: Tensor, grid: Tensor, rows: Tensor, items: Float[Tensor, "R E"]) -> Tensor:
        """Cross-entropy of the next item among the distinct targets of the batch, popularity corrected, in nats.

        Args: item_ids: (B, T) windows; grid: index of each entry in `rows`; items: (R, E) quantized vectors.
        Choice: distinct candidates avoid duplicates of the positive; logQ is of a candidate among a batch's targets.
        """
        inputs, length = items[grid[:, :-1]], grid.shape[1] - 1
        states, _ = self.history_encoder(inputs + self.position.weight[:length], [causal_mask(length, items.device)])
        real = item_ids[:, 1:] > 0
        candidates, target = grid[:, 1:][real].unique(return_inverse=True)
        share = self.counts[rows[candidates]] / self.counts.sum()
        absent = (1 - share).clamp_max(1 - 1e-7) ** int(real.sum())  # probability that no target is the candidate
        log_q = torch.log1p(-absent.clamp_max(1 - 1e-7))
        asked = F.normalize(states[real], dim=-1) / self.config.temperature  # scale states: there are far more logits
        return softmax_loss(asked, F.normalize(items[candidates], dim=-1), target, -log_q.to(asked))
