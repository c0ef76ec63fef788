"""The content of items as an encoder reads it: texts without markup, titles where texts lack, no placeholders."""

import html
import math
import re

import polars as pl

_MARKUP = r"<[a-zA-Z/!][^<>]*>|&(?:#\d+|#[xX][0-9a-fA-F]+|[a-zA-Z]+\d*);"
_HIDDEN = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[a-zA-Z/!][^<>]*>", re.DOTALL | re.IGNORECASE)
# What shops write where they have nothing to say, without case and without marks at the end.
_EMPTY_WORDS = (
    *("n/a", "na", "n.a", "none", "null", "nan", "nil", "tbd", "tba", "todo", "unknown", "undefined", "empty", "blank"),
    *("untitled", "no title", "no name", "no text", "no data", "no content", "no info", "no information"),
    *("no description", "no description available", "no description yet", "no description provided", "no details"),
    *("description", "description missing", "missing description", "description not available", "not available"),
    *("description unavailable", "unavailable", "not applicable", "not specified", "not provided", "coming soon"),
    *("description coming soon", "placeholder", "lorem ipsum", "keine", "keine beschreibung", "nicht verfügbar"),
    *("keine beschreibung verfügbar", "keine angabe", "k.a", "pas de description", "aucune description"),
    *("sans description", "non disponible", "sin descripción", "sin descripcion", "no disponible", "sem descrição"),
    *("sem descricao", "nessuna descrizione", "geen beschrijving", "brak opisu", "нет описания", "нет", "без описания"),
    *(
        "açıklama yok",
        "无",
        "暂无",
        "暂无描述",
        "无描述",
        "暂无简介",
        "無",
        "なし",
        "説明なし",
        "未設定",
        "없음",
        "설명 없음",
    ),
)
_NOTHING = r"^[\x00-\x7f–—…·•]*$"  # ASCII marks and dashes, of which `_VISIBLE` finds no letter or digit
_VISIBLE = r"[^\W_]"


def plain(texts: pl.Series) -> pl.Series:
    """Texts as a reader of the page sees them: entities resolved, tags, scripts and comments removed.

    Texts without markup are unchanged, so the cache of their encodings stays valid.
    """
    marked = texts.str.contains(_MARKUP).fill_null(False)
    if not marked.any():
        return texts
    seen = pl.Series(texts.name, [_seen(text) for text in texts.filter(marked)], pl.String)
    return texts.scatter(marked.arg_true(), seen)


def is_placeholder(texts: pl.Series) -> pl.Series:
    """Whether a text says nothing: `no description`, `n/a`, only marks, or only empty markup; null is false."""
    words = plain(texts).str.strip_chars().str.to_lowercase()
    bare = words.str.strip_chars(" .!?:;-_()[]{}<>*\"'")
    empty = bare.is_in(list(_EMPTY_WORDS)) | bare.str.starts_with("lorem ipsum")
    marks = words.str.contains(_NOTHING) & ~words.str.contains(_VISIBLE)
    return (empty | marks).fill_null(False)


def texts_to_encode(items: pl.DataFrame) -> pl.Series:
    """The text of each item, or its title and categories if it has no text; null if it has none of them.

    Args: items: with the columns title, text and categories of a checked bundle.
    """
    known = {name: plain(items[name].set(is_placeholder(items[name]), None)) for name in ("title", "text")}
    labels = items.select(kind=pl.col("categories").list.eval(pl.element().filter(pl.element().is_not_null())))["kind"]
    joined = plain(labels.list.join(", "))
    joined = joined.set(is_placeholder(joined), None)
    table = pl.DataFrame(known | {"categories": joined})
    named = pl.concat_str("title", "categories", separator=". ", ignore_nulls=True).replace("", None)
    return table.select(pl.coalesce("text", named).alias("text")).to_series()


def shared_limit(pictured: int) -> int:
    """From how many items on a picture counts as a placeholder, in a bundle with so many pictured items.

    Choice: variants of one product share a picture too, so it takes 5 items and a twentieth of all, or 100.
    """
    return min(max(5, math.ceil(pictured / 20)), 100)


def _seen(text: str) -> str:
    return " ".join(_HIDDEN.sub(" ", html.unescape(text)).split())
