"""Generation of IDs against Hugging Face's T5: users per second in batches, and latency of single requests."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from bbqrec_core import PrefixTree, Recommender, RecommenderConfig, SemanticIds, beam_search, build_recommender
from bbqrec_core.recommender.decoding import Extendable
from bbqrec_lab.datasets.synthetic import random_ids
from bbqrec_lab.measure import Plan, Side, interleave, timed
from bbqrec_lab.speed.compiled_search import CompiledBeam, compile_beam

from .harness import Row, cost_row, make_row, rate_row

LEVELS, CODES, BEAM, HISTORY = 4, 256, 20, 50
FIRST = 2  # token of code 0 at level 0; token 0 is padding and start, token 1 is end of sequence
NATS = 1e-3  # tolerance for scores, which are float32 sums in a different order


def _tokens(codes: Tensor) -> Tensor:
    """Codes (..., LEVELS) as tokens: each level has its own range."""
    return codes + FIRST + CODES * torch.arange(LEVELS)


def _t5(config: RecommenderConfig) -> T5ForConditionalGeneration:
    """A T5 with our width and heads; encoder blocks as in our backbone, decoder blocks as in our code head."""
    logging.set_verbosity_error()
    torch.manual_seed(0)
    sizes = T5Config(
        vocab_size=FIRST + LEVELS * CODES,
        d_model=config.width,
        d_kv=config.width // config.heads,
        d_ff=4 * config.width,
        num_layers=config.layers,
        num_decoder_layers=config.depth_layers,
        num_heads=config.heads,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(sizes).eval()


def _allowed(ids: SemanticIds) -> Callable[[int, Tensor], list[int]]:
    """The peer's `prefix_allowed_tokens_fn`: the valid next tokens of a prefix, from a trie of dicts."""
    root: dict[int, dict] = {}
    for code in _tokens(torch.from_numpy(ids.code_ids[1:])).tolist():
        node = root
        for token in code:
            node = node.setdefault(token, {})

    def allowed(user: int, tokens: Tensor) -> list[int]:
        node = root
        for token in tokens.tolist()[1:]:
            node = node.get(token, {})  # dead beams continue with invalid prefixes
        return list(node) or [0]

    return allowed


def _generate(model: T5ForConditionalGeneration, tokens: Tensor, allowed: Callable, scored: bool = False) -> Tensor:
    """The peer's lists, best first: tokens (B, BEAM, LEVELS), or their scores in nats (B, BEAM)."""
    out = model.generate(
        tokens,
        num_beams=BEAM,
        num_return_sequences=BEAM,
        max_new_tokens=LEVELS,
        min_new_tokens=LEVELS,
        length_penalty=0.0,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
        return_dict_in_generate=True,
        output_scores=scored,
    )
    return out.sequences_scores.view(-1, BEAM) if scored else out.sequences[:, 1:].view(-1, BEAM, LEVELS)


class _T5Frontier(Extendable):
    """The peer's model in our search; it reads the whole prefix again at each step."""

    def __init__(self, model: T5ForConditionalGeneration, tokens: Tensor, tree: PrefixTree) -> None:
        self.model, self.tree, self.level = model, tree, 0
        self.encoded = model.encoder(tokens).last_hidden_state
        self.prefix = torch.zeros(len(tokens), 1, dtype=torch.long)
        self._read()

    def _read(self) -> None:
        logits = self.model(encoder_outputs=(self.encoded,), decoder_input_ids=self.prefix).logits[:, -1]
        start = FIRST + CODES * self.level
        self.log_probs = logits.log_softmax(-1)[:, start : start + CODES]

    def advance(self, rows: Tensor, nodes: Tensor) -> None:
        """Extend each given row by one child, given as a node of the tree."""
        token = self.tree.code[self.level][nodes] + FIRST + CODES * self.level
        self.encoded = self.encoded[rows]
        self.prefix = torch.cat([self.prefix[rows], token[:, None]], 1)
        self.level += 1
        self._read()


def _same_search(model: T5ForConditionalGeneration, tree: PrefixTree, tokens: Tensor, allowed: Callable) -> str:
    """Run our search and the peer's search on the same model and tree, and compare the scores of their lists."""
    theirs = _generate(model, tokens, allowed, scored=True)
    _, ours = beam_search(_T5Frontier(model, tokens, tree), tree, BEAM)
    gap = float((ours.sort(descending=True).values - theirs.sort(descending=True).values).abs().max())
    if not gap < NATS:
        raise ArithmeticError(f"scores of both searches on the same model differ by {gap} nats")
    return f"on the same model, scores of both lists differ by at most {gap:.0e} nats"


class _Decoders:
    """Both sides on one catalogue and the same histories."""

    def __init__(self, plan: Plan, users: int) -> None:
        items, config = plan.size(10_000, 300), RecommenderConfig()
        self.ids = random_ids(items, LEVELS, CODES)
        self.ours: Recommender = build_recommender(items, self.ids, config, 0)
        self.theirs, self.allowed = _t5(config), _allowed(self.ids)
        self.rows = torch.from_numpy(np.random.default_rng(0).integers(1, items + 1, (users, HISTORY)))
        self.tokens = _tokens(torch.from_numpy(self.ids.code_ids)[self.rows]).flatten(1)  # (users, HISTORY * LEVELS)
        self.checked = _same_search(self.theirs, self.ours.tree, self.tokens[:3], self.allowed)
        self.words = f"beam {BEAM}, {LEVELS} codes, {items:,} items, histories of {HISTORY}"

    def side(self, which: str, start: int, count: int) -> Callable[[], object]:
        """Generation for some users: by our model, by our compiled program, or by the peer."""
        users = slice(start, start + count)
        if which == "ours":
            return lambda: self.ours.beam(self.rows[users], BEAM)
        if which == "compiled":
            return lambda: self.compiled(self.rows[users])
        return lambda: _generate(self.theirs, self.tokens[users], self.allowed)

    def compile(self, plan: Plan, users: int) -> str:
        """Compile our search for batches of `users`, compare it with the model, and return its start-up times."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "beam.pt2"
            compiling = timed(lambda: compile_beam(self.ours, BEAM, path, users=users), plan)
            start = plan.now()
            self.compiled = CompiledBeam(path)
            loading = plan.now() - start
        for rows in self.rows[: 3 * users].split(users):
            gap = float((self.compiled(rows)[1] - self.ours.beam(rows, BEAM)[1]).abs().max())
            if not gap < NATS:
                raise ArithmeticError(f"scores of the compiled search and of the model differ by {gap} nats")
        return f"compiled once in {compiling:.0f} s and loaded in {1000 * loading:.0f} ms"


PEER = "Hugging Face T5 generate with prefix_allowed_tokens_fn, equal width and depth, history as codes"


@torch.inference_mode()
def beam(plan: Plan) -> list[Row]:
    """Users per second, in batches of 64."""
    users = plan.size(64, 4)
    decoders = _Decoders(plan, users)
    started = decoders.compile(plan, users)
    sides = {which: Side(decoders.side(which, 0, users), users) for which in ("compiled", "ours", "theirs")}
    seconds = interleave(sides, plan)
    rows = []
    for which, how, aim in (("compiled", started, ">= 20"), ("ours", "not compiled", "")):
        pair, spent = (sides[which], sides["theirs"]), (seconds[which], seconds["theirs"])
        work = f"constrained decoding, {how}, {decoders.words}"
        rows.append(rate_row(work, PEER, "users", pair, spent, aim, decoders.checked))
    return rows


@torch.inference_mode()
def request(plan: Plan) -> list[Row]:
    """Latency of single requests: median and 99th percentile, 40 requests per side and repetition."""
    count = plan.size(40, 3) * plan.repetitions
    decoders = _Decoders(plan, count)
    started = decoders.compile(plan, 1)
    seconds: dict[str, list[float]] = {"compiled": [], "ours": [], "theirs": []}
    for which in seconds:
        decoders.side(which, 0, 1)()
    for user in range(count):
        for which in seconds:
            seconds[which].append(timed(decoders.side(which, user, 1), plan))
    compiled, ours, theirs = (1000 * np.array(seconds[which]) for which in seconds)
    work, plain = (f"one request, {how}, {decoders.words}" for how in (started, "not compiled"))
    (p50, p99), their99 = np.percentile(compiled, (50, 99)), np.percentile(theirs, 99)
    return [
        make_row(f"{work}: p50", PEER, "ms", compiled, theirs, theirs / compiled, ">= 20", decoders.checked),
        make_row(f"{work}: p99", PEER, "ms", p99, their99, their99 / p99, ">= 20", decoders.checked),
        cost_row(f"{work}: p99 against p50", "its own p50", "ms", p99, p50, "<= 3", ""),
        make_row(f"{plain}: p50", PEER, "ms", ours, theirs, theirs / ours, "", decoders.checked),
    ]
