"""Semantic IDs of three kinds, and what a ranking model can read of an item: hashed numbers, vectors, or its codes."""

import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from bbqrec_core import SemanticIds
from bbqrec_core.tokenizer.semantic_ids import group_sizes
from bbqrec_lab.baselines.tokenizers import resolve_signals
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import runs
from bbqrec_lab.experiments.presets import Config, with_overrides
from bbqrec_lab.experiments.variants import variant_config
from bbqrec_lab.store import Store

KINDS = {  # kind of ID: the row of the tables whose tokenizer makes it
    "random": "random-generation",
    "text-only": "tiger",
    "behaviour-bound": "bbqrec",
}
FORMS = ("codes", "n-grams", "prefixes", "pieces")  # what is read of an ID
SHARE = 2  # items per row of a table
_PRIME = 2_147_483_647  # of the hash
_FIRST_LETTER = 0x4E00  # code k of level l is written as one letter from here on


class ItemInput(NamedTuple):
    """What a model reads of every item: tokens, each a row of one table, or a vector. One of the two is given.

    Args: tokens: (N+1, T) from 1, 0 pads. rows: of the table, without that of the padding. vectors: (N+1, D).
        stored: bytes that are kept of each item.
    """

    tokens: Int[np.ndarray, "rows T"] | None
    rows: int
    vectors: Float32[np.ndarray, "rows D"] | None
    stored: int


def make_ids(data: NamedDataset, config: Config, store: Store) -> dict[str, SemanticIds]:
    """The IDs of `KINDS`, of one shape: IDs from text get the nearest free code too, instead of TIGER's extra one."""
    found = {}
    for kind, variant in KINDS.items():
        own = with_overrides(variant_config(variant, config), {"tokenizer.uniqueness": "nearest"})
        found[kind] = runs.run_tokenizer(data, own, store)[0].ids
    return found


def text_only_signals(data: NamedDataset, config: Config) -> list[str]:
    """What the `text-only` IDs are made of: `text`, and on data without text the first modality or nothing.

    Returns: names of modalities; empty if training events are the only signal.
    """
    return list(resolve_signals(variant_config(KINDS["text-only"], config).tokenizer, data).signals)


def sharing(given: ItemInput) -> int:
    """The number of items that have the tokens of another item, so that a model cannot tell them apart."""
    size, _ = group_sizes(given.tokens)
    return int(size[size > 1].sum())


def table_rows(n_items: int) -> int:
    """Rows of a table of hashed tokens: half as many as items, so that items must share."""
    return max(n_items // SHARE, 8)


def _hashed(keys: Int[np.ndarray, "*shape"], rows: int, seed: int) -> Int[np.ndarray, "*shape"]:
    """Rows 1 .. `rows` of keys by a seeded multiplicative hash."""
    factor, shift = np.random.default_rng([seed, 21]).integers(1, _PRIME, 2)
    mixed = (keys.astype(object) * int(factor) + int(shift)) % _PRIME
    return (mixed % rows).astype(np.int64) + 1


def hashed_numbers(n_items: int, seed: int) -> ItemInput:
    """Random IDs: the number of an item, hashed; items that share a row have nothing else in common."""
    rows = table_rows(n_items)
    tokens = _hashed(np.arange(n_items + 1), rows, seed)[:, None]
    tokens[0] = 0
    return ItemInput(tokens, rows, None, 4)


def content_vectors(data: NamedDataset) -> ItemInput:
    """The frozen features of all modalities side by side."""
    vectors = np.concatenate([data.features[name] for name in sorted(data.features)], 1).astype(np.float32)
    return ItemInput(None, 0, vectors, 4 * vectors.shape[1])


def code_input(ids: SemanticIds, form: str, counts: Int[np.ndarray, "rows"], seed: int) -> ItemInput:
    """What is read of an ID.

    Args: form: `codes` (one row per code of each level), `n-grams` (pairs of neighbouring codes, hashed), `prefixes`
        (all prefixes, hashed), or `pieces` (a SentencePiece vocabulary over codes). counts: training events of items,
        the weights of the vocabulary. seed: of the hash.
    Raises: ValueError for another form.
    Source: Singh et al. 2024 (arXiv 2306.08121) for n-grams and pieces.
    """
    code_ids, rows = ids.code_ids.astype(np.int64), table_rows(len(ids.code_ids) - 1)
    begin = np.cumsum([0, *ids.sizes[:-1]])
    if form == "codes":
        tokens, rows = code_ids + begin + 1, sum(ids.sizes)
    elif form == "n-grams":
        width = max(sum(ids.sizes), 2)
        letters = code_ids + begin
        pairs = letters[:, :-1] * width + letters[:, 1:] if ids.sid_len > 1 else letters
        tokens = _hashed(pairs, rows, seed)
    elif form == "prefixes":
        numbers = [code_ids[:, 0]]
        for level in range(1, ids.sid_len):
            numbers.append(numbers[-1] * max(ids.sizes) + code_ids[:, level])
        keys = np.stack([number * ids.sid_len + level for level, number in enumerate(numbers)], 1)
        tokens = _hashed(keys, rows, seed)
    elif form == "pieces":
        tokens, rows = _pieces(code_ids + begin, rows, counts)
    else:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    tokens[0] = 0
    return ItemInput(tokens, rows, None, 2 * ids.sid_len)


def _pieces(
    letters: Int[np.ndarray, "rows L"], rows: int, counts: Int[np.ndarray, "rows"]
) -> tuple[Int[np.ndarray, "rows T"], int]:
    """Rows of the pieces of every ID, 0 pads, and the size of the vocabulary, which has every single code."""
    import sentencepiece  # of the extra `tasks`

    words = ["".join(chr(_FIRST_LETTER + letter) for letter in line) for line in letters]
    alphabet = "".join(sorted(set("".join(words[1:]))))
    corpus = [word for word, count in zip(words[1:], counts[1:], strict=True) for _ in range(min(int(count), 100))]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus or words[1:]),
        model_writer=model,
        model_type="bpe",
        vocab_size=max(rows, len(alphabet) + 3),
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars=alphabet,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        split_by_unicode_script=False,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    found = [processor.encode(word) for word in words[1:]]
    tokens = np.zeros((len(letters), max(map(len, found))), np.int64)
    for row, pieces in enumerate(found, start=1):
        tokens[row, : len(pieces)] = np.array(pieces) + 1
    return tokens, processor.get_piece_size()


def all_inputs(
    data: NamedDataset, ids: Mapping[str, SemanticIds], counts: Int[np.ndarray, "rows"], seed: int
) -> dict[str, ItemInput]:
    """Every input by name: `hashed numbers`, `content`, and `KIND FORM`; without features there is no content."""
    found = {"hashed numbers": hashed_numbers(data.n_items, seed)}
    if data.features:
        found["content"] = content_vectors(data)
    return found | {f"{kind} {form}": code_input(ids[kind], form, counts, seed) for kind in ids for form in FORMS}
