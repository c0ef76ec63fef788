"""Stage 1 of baselines and ablations: separate or chained codebooks, concatenated codes, losses of LETTER."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from bbqrec_core.tokenizer.fit import TokenizerMaker
from bbqrec_core.tokenizer.model import Tokenizer, info_nce
from bbqrec_core.tokenizer.quantizer import Quantized, ResidualQuantizer
from bbqrec_lab.baselines.variant_quantizer import QUANTIZERS
from bbqrec_lab.settings import VariantTokenizerConfig

AXES = (1, 1, 2, 1)  # per field of `Quantized`: the axis of the units, for items with units (R, U)


class UnitQuantizer(nn.Module):
    """Quantize the units of items (signals, and their fused mean), with one codebook for all of them or one per unit.

        chain: u_s = unit_s - said_(s-1);  said_s = said_(s-1) + q(u_s) if the item has s, else said_(s-1)

    Args: books: one quantizer for all units, or one per unit. chain: whether each unit quantizes the residual of the
        units before it; the vectors are then the running sums `said`.
    """

    def __init__(self, books: Sequence[ResidualQuantizer], chain: bool) -> None:
        super().__init__()
        self.books, self.chain = nn.ModuleList(books), chain

    def book(self, unit: int) -> ResidualQuantizer:
        """The quantizer of one unit."""
        return self.books[unit % len(self.books)]

    def forward(self, units: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]) -> Quantized:
        """As `ResidualQuantizer.forward`, over the units of items."""
        if len(self.books) == 1 and not self.chain:
            return self.books[0](units)
        said, parts = torch.zeros_like(units[:, 0]), []
        for index in range(units.shape[1]):
            part = self.book(index)(units[:, index] - said)
            part = part._replace(vectors=said + part.vectors)
            if self.chain:
                said = torch.where(present[:, index, None], part.vectors.detach(), said)
            parts.append(part)
        return Quantized(
            *(torch.stack(field, axis) for field, axis in zip(zip(*parts, strict=True), AXES, strict=True))
        )

    def decode(self, codes: Int[Tensor, "R U L"]) -> Float[Tensor, "R U E"]:
        """The quantized vector of every unit, for items that have all units."""
        vectors = torch.stack([self.book(index).decode(codes[:, index]) for index in range(codes.shape[1])], 1)
        return vectors.cumsum(1) if self.chain else vectors

    @torch.no_grad()
    def initialise(self, units: Float[Tensor, "R U E"], generator: Generator, present: Bool[Tensor, "R U"]) -> None:
        """K-means initialisation, on all present units together or separately per unit."""
        if len(self.books) == 1:
            self.books[0].initialise(units, generator, present)
            return
        for index, book in enumerate(self.books):
            book.initialise(units[:, index], generator, present[:, index])

    def observe(self, seen: Quantized, present: Bool[Tensor, "R U"]) -> None:
        """Update from one batch, each codebook from the units that it quantized."""
        if len(self.books) == 1:
            self.books[0].observe(seen, present)
            return
        for index, book in enumerate(self.books):
            own = (field.select(axis, index) for field, axis in zip(seen, AXES, strict=True))
            book.observe(Quantized(*own), present[:, index])


class VariantTokenizer(Tokenizer):
    """The core's `Tokenizer` with the switches of `VariantTokenizerConfig`.

    Args: those of `Tokenizer`, and collaborative: item embeddings of another model, (N+1, D), with which `w_align`
        aligns the items.
    Raises: ValueError for `w_align` without embeddings.
    """

    config: VariantTokenizerConfig

    def __init__(
        self,
        features: dict[str, Float[Tensor, "N d"]],
        presence: dict[str, Bool[Tensor, "N"]],
        counts: Int[Tensor, "N"],
        config: VariantTokenizerConfig,
        collaborative: Float[np.ndarray, "N D"] | None = None,
    ) -> None:
        if config.w_align and collaborative is None:
            raise ValueError("w_align needs item embeddings of another model: pass `collaborative`, or set w_align=0")
        self._target_width = collaborative.shape[1] if config.w_align else 0
        super().__init__(features, presence, counts, config)
        if config.w_align:
            self.register_buffer("collaborative", torch.from_numpy(collaborative), persistent=False)

    def make_quantizer(self) -> UnitQuantizer:
        """The codebooks of all units, then the map of `w_align`: this order fixes the random numbers."""
        config, make = self.config, super().make_quantizer
        units = len(self.signals) + (config.combine == "fused" and len(self.signals) > 1)
        kind = QUANTIZERS[config.gradient, config.codebook_update]
        books = [make(kind) for _ in range(1 if config.shared_codebook else units)]
        if config.w_align:
            self.align = nn.Linear(self._target_width, config.code_width)
        return UnitQuantizer(books, config.combine == "chain")

    def units(
        self, signals: Float[Tensor, "R S E"], present: Bool[Tensor, "R S"]
    ) -> tuple[Float[Tensor, "R U E"], Bool[Tensor, "R U"]]:
        """The vectors to quantize: the signals and, for `fused` IDs, their gated mean."""
        return super().units(signals, present) if self.config.combine == "fused" else (signals, present)

    def quantize(self, units: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]) -> Quantized:
        """Quantize the units of items with their codebooks."""
        return self.quantizer(units, present)

    def quantized_items(self, vectors: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]) -> Float[Tensor, "R E"]:
        """One quantized vector per item: of the fused unit, the last of the chain, or the mean of present signals."""
        if self.config.combine == "fused" or vectors.shape[1] == 1:
            return super().quantized_items(vectors, present)
        if self.config.combine == "chain":
            last = (present * torch.arange(present.shape[1], device=present.device)).argmax(1)
            return vectors[torch.arange(len(vectors), device=present.device), last] * present.any(1, keepdim=True)
        return (vectors * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp_min(1)

    def encode(
        self, units: Float[Tensor, "R U E"], present: Bool[Tensor, "R U"]
    ) -> tuple[Quantized, Int[Tensor, "R learned"], Float[Tensor, "learned K E"]]:
        """All quantized units, the codes that form the IDs of the items, and the codebook of each position.

        `concat` and `chain` concatenate the codes in the order of `signals`; the mean of the present signals replaces
        an absent one, so every ID has full length.
        """
        if self.config.combine == "fused":
            quantized = self.quantize(units, present)
            return quantized, quantized.codes[:, -1], self.quantizer.book(units.shape[1] - 1).codebook
        mean = (units * present[..., None]).sum(1, keepdim=True) / present.sum(1).clamp_min(1)[:, None, None]
        quantized = self.quantize(torch.where(present[..., None], units, mean), torch.ones_like(present))
        books = [self.quantizer.book(index).codebook for index in range(units.shape[1])]
        return quantized, quantized.codes.flatten(1), torch.cat(books)

    def more_losses(
        self, drawn: Int[Tensor, "R"], items: Float[Tensor, "R E"], quantized: Quantized, present: Bool[Tensor, "P U"]
    ) -> dict[str, Tensor]:
        """LETTER's two regularizers, each only if its weight is not 0."""
        config, out = self.config, {}
        if config.w_align:
            out["alignment"] = config.w_align * self.alignment(drawn, items)
        if config.w_use:
            out["usage"] = config.w_use * self.usage(quantized, present)
        return out

    def alignment(self, rows: Int[Tensor, "R"], items: Float[Tensor, "R E"]) -> Tensor:
        """InfoNCE between the items' quantized vectors and their collaborative embeddings, trained items only, in nats.

        Source: Wang et al. 2024 (LETTER), section 3.2, collaborative regularization.
        """
        trained = self.counts[rows] > 0
        return info_nce(items[trained], self.align(self.collaborative[rows[trained]]), self.config.temperature)

    def usage(self, quantized: Quantized, present: Tensor) -> Tensor:
        """log K minus the entropy of the mean soft assignment, mean over levels, in nats; 0 for even use."""
        gaps = []
        for index, book in enumerate(self.quantizer.books):
            own = present.clone()
            own[:, torch.arange(own.shape[1], device=own.device) % len(self.quantizer.books) != index] = False
            for table, residual in zip(book.codebook, quantized.residuals, strict=True):
                distance = torch.cdist(residual[own], table).square() / table.shape[1]
                mean = (-distance / self.config.temperature).softmax(-1).mean(0)
                gaps.append((mean * mean.clamp_min(1e-9).log()).sum() + torch.log(mean.new_tensor(float(len(mean)))))
        return torch.stack(gaps).mean()


def tokenizer_maker(collaborative: Float[np.ndarray, "N D"] | None) -> TokenizerMaker:
    """The model factory of a variant for `fit_tokenizer`; `w_align` needs the item embeddings."""
    return partial(VariantTokenizer, collaborative=collaborative)
