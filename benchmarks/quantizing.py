"""Stage 1 against its peers: encoding of many vectors, and training steps of a plain RQ-VAE."""

from functools import partial

import faiss
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from vector_quantize_pytorch import ResidualVQ

from bbqrec_core import ResidualQuantizer, TokenizerConfig
from bbqrec_core.tokenizer.model import Tokenizer
from bbqrec_core.training import Task, run_epoch
from bbqrec_lab.measure import Plan, Side, interleave
from bbqrec_lab.speed import encoding

from .harness import Row, rate_row

LEVELS, CODES, WIDTH = 4, 256, 64
PEER_BLOCK = 16_384  # vectors per call of the peer, which is slower on whole tables
EQUAL = 0.999  # minimum share of vectors with equal codes; rounding decides between codes at equal distance


def _peer(codebook: Tensor) -> ResidualVQ:
    """The peer with our codebook, in eval mode."""
    peer = ResidualVQ(dim=WIDTH, num_quantizers=LEVELS, codebook_size=CODES, freeze_codebook=True)
    for layer, table in zip(peer.layers, codebook, strict=True):
        layer._codebook.embed.copy_(table[None])
        layer._codebook.initted.fill_(1)
    return peer.eval()


def _faiss(codebook: Tensor) -> faiss.ResidualQuantizer:
    """faiss's greedy residual quantizer with our codebook, on one thread."""
    faiss.omp_set_num_threads(1)
    peer = faiss.ResidualQuantizer(WIDTH, LEVELS, CODES.bit_length() - 1)
    peer.max_beam_size = 1
    faiss.copy_array_to_vector(codebook.numpy().ravel(), peer.codebooks)
    peer.is_trained = True
    return peer


def _products(vectors: Tensor, codebook: Tensor) -> None:
    """Only the matrix products of encoding, block by block into one buffer: a lower bound on the time."""
    out = torch.empty(1024, CODES)  # 1 MB: larger buffers are slower
    for block in vectors.split(len(out)):
        for table in codebook:
            torch.mm(block, table.T, out=out[: len(block)])


@torch.inference_mode()
def encode(plan: Plan) -> list[Row]:
    """Encode a million vectors with 4 x 256 codes; the codebook comes from k-means on a sample."""
    count = plan.size(1_000_000, 20_000)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, WIDTH, generator=generator) * torch.linspace(1.5, 0.2, WIDTH)
    quantizer = ResidualQuantizer(LEVELS, CODES, WIDTH)
    quantizer.initialise(vectors[:20_000], generator)
    codebook = quantizer.codebook.detach()
    vq, fa, array = _peer(codebook), _faiss(codebook), vectors.numpy()

    def by_vq() -> Tensor:
        return torch.cat([vq(block[None])[1][0] for block in vectors.split(PEER_BLOCK)])

    sides = {
        "ours": Side(lambda: encoding.encode(quantizer, vectors), count),
        "vq": Side(by_vq, count),
        "faiss": Side(lambda: fa.compute_codes(array), count),
        "products": Side(lambda: _products(vectors, codebook), count),
    }
    codes = encoding.encode(quantizer, vectors)
    equal = {
        "vq": float((codes == by_vq()).all(1).float().mean()),
        "faiss": float((codes.numpy() == fa.compute_codes(array)).all(1).mean()),
    }
    if min(equal.values()) < EQUAL:
        raise ArithmeticError(f"equal codebooks gave different codes: share of equal codes {equal}")
    seconds = interleave(sides, plan)
    work = f"encode {count:,} vectors by {LEVELS} x {CODES} codes, width {WIDTH}"
    row = partial(rate_row, work, unit="vectors")
    checks = {name: f"{share:.5f} of codes equal" for name, share in equal.items()} | {"products": ""}
    peers = {
        "vq": ("vector-quantize-pytorch ResidualVQ, eval", ">= 2"),
        "faiss": ("faiss ResidualQuantizer, beam 1", ">= 1"),
        "products": ("its matrix products alone (the bound)", ">= 0.5"),
    }
    return [
        row(peer, sides=(sides["ours"], sides[name]), seconds=(seconds["ours"], seconds[name]), aim=aim,
            checked=checks[name])
        for name, (peer, aim) in peers.items()
    ]  # fmt: skip


class PlainRqVae(nn.Module):
    """A typical use of the peer: encoder, ResidualVQ with moving averages, decoder, squared error."""

    def __init__(self, inputs: int, hidden: int, levels: int, codes: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.decoder = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, inputs))
        self.quantizer = ResidualVQ(
            dim=width, num_quantizers=levels, codebook_size=codes, decay=0.95, commitment_weight=0.25
        )

    def forward(self, features: Tensor) -> Tensor:
        """The loss of a batch."""
        vectors, _, commitment = self.quantizer(self.encoder(features)[None])
        return functional.mse_loss(self.decoder(vectors[0]), features) + commitment.sum()


def _plain_epoch(model: PlainRqVae, optimizer: AdamW, features: Tensor, batches: list[Tensor]) -> None:
    """The plain training loop: one step per batch."""
    model.train()
    for rows in batches:
        loss = model(features[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _plain_config() -> TokenizerConfig:
    """TIGER's objective in our tokenizer: one signal, only reconstruction and commitment."""
    return TokenizerConfig(
        id_signal=False, specific=False, normalise=False, w_mi=0.0, w_cross=0.0, w_seq=0.0, uniqueness="none"
    )


def stage_one(plan: Plan) -> list[Row]:
    """Training steps of the plain RQ-VAE objective, with equal sizes and batches."""
    items, dims, steps = plan.size(20_000, 600), 384, plan.size(200, 10)
    config = _plain_config()
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    features = torch.randn(items + 1, dims)
    features[0] = 0
    present = torch.arange(items + 1) > 0
    model = Tokenizer({"text": features}, {"text": present}, present.long(), config)
    batches = [torch.from_numpy(rng.integers(1, items + 1, config.batch_items)) for _ in range(steps)]
    with torch.no_grad():
        start = model.parts(torch.arange(1, min(items, 4096) + 1)).signals[:, 0]
        model.quantizer.initialise(start, torch.Generator().manual_seed(0))
    peer = PlainRqVae(dims, config.hidden, config.levels, config.codes, config.code_width)
    checked = _same_objective(model, peer, features, batches[0])
    grid = torch.ones(1, 2, dtype=torch.long)
    task = Task(
        "tokenizer",
        model,
        [AdamW(model.parameters(), lr=config.lr, weight_decay=0.0, fused=True)],
        lambda epoch: batches,
        lambda rows: model.losses(grid, rows),
    )
    theirs = AdamW(peer.parameters(), lr=config.lr, weight_decay=0.0)
    samples = steps * config.batch_items
    sides = {
        "ours": Side(lambda: run_epoch(task, 0, 1, lambda *_: None), samples),
        "theirs": Side(lambda: _plain_epoch(peer, theirs, features, batches), samples),
    }
    seconds = interleave(sides, plan)
    work = f"stage 1 at the plain RQ-VAE objective, {config.levels} x {config.codes}, batches of {config.batch_items}"
    pair, spent = (sides["ours"], sides["theirs"]), (seconds["ours"], seconds["theirs"])
    return [rate_row(work, "plain loop on vector-quantize-pytorch", "samples", pair, spent, ">= 2", checked)]


@torch.no_grad()
def _same_objective(model: Tokenizer, peer: PlainRqVae, features: Tensor, rows: Tensor) -> str:
    """Copy our weights and codes to the peer, and compare both reconstruction errors."""
    peer.encoder.load_state_dict(model.behaviour["text"].state_dict())
    peer.decoder.load_state_dict(model.decoders["text"].state_dict())
    for layer, table in zip(peer.quantizer.layers, model.quantizer.codebook, strict=True):
        for moving in (layer._codebook.embed, layer._codebook.embed_avg):
            moving.copy_(table[None])
        layer._codebook.cluster_size.fill_(1)
        layer._codebook.initted.fill_(1)
    peer.eval()
    vectors = peer.quantizer(peer.encoder(features[rows])[None])[0][0]
    theirs = float(functional.mse_loss(peer.decoder(vectors), features[rows]))
    ours = float(model.eval().losses(torch.ones(1, 2, dtype=torch.long), rows, learn=False)["reconstruction"])
    if abs(ours - theirs) > 1e-3 * theirs:
        raise ArithmeticError(f"equal weights gave different reconstruction errors: ours {ours}, theirs {theirs}")
    return f"reconstruction {ours:.5f} and {theirs:.5f}"
