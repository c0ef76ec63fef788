"""Guess which column holds what, from its name, its type and its first values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import polars as pl

from bbqrec_lab.datasets.importing.report import refused
from bbqrec_lab.datasets.importing.tables import Table
from bbqrec_lab.datasets.importing.times import HALF, recognise

EVENT_ROLES, ITEM_ROLES = ("user", "item", "time", "rating"), ("item", "title", "text", "image", "categories")
_KNOWN = {  # role: names of columns without case, blanks and marks; the first that a table has is taken
    "user": "userid user uid reviewerid customerid customer visitorid clientid memberid buyerid accountid "
    "personid authorid kundennummer kundenid kunde nutzerid profileid userno customerno username login "
    "email sessionid session",
    "item": "itemid item iid parentasin asin productid product movieid businessid articleid sku stockcode "
    "trackid songid artistid bookid isbn videoid contentid newsid gameid venueid recipeid poiid gmapid "
    "goodsid articlenumber itemno productno productcode artikelnummer artikelid artikel movie article "
    "book track song",
    "time": "timestamp unixreviewtime timems eventtime datetime time ts boughtat createdat purchasedat "
    "orderedat viewedat purchasedate orderdate invoicedate eventdate visittime reviewtime date utctime "
    "utctimestamp zeitstempel zeit datum gekauftam bestelltam",
    "rating": "rating overall stars score ratingvalue reviewoverall bewertung sterne",
    "title": "title itemtitle movietitle producttitle productname itemname name bookname movie bezeichnung titel "
    "artikelname trackname songname",
    "text": "text description descriptions abstract overview plot synopsis itemdescription productdescription "
    "feature features body content beschreibung story",
    "image": "image imagepath imagefile picture img photo poster cover imagename images imurl imageurl "
    "imageurlhighres bild bildpfad",
    "categories": "categories category genres genre class tags maincategory maincat department categoryname "
    "productcategory categorycode kategorie kategorien warengruppe subcategory topics",
}
_WORDS = {  # role: words of which a name of several words may consist, if no column has a known name
    "user": "user customer visitor client member buyer reviewer person kunde kunden nutzer",
    "item": "item product article movie sku asin business artikel produkt book track song",
    "time": "time timestamp date at datetime datum zeit",
    "rating": "rating stars score",
    "title": "title name titel",
    "text": "description text abstract beschreibung",
    "image": "image picture photo img poster bild",
    "categories": "categories category genres genre tags kategorie",
}
_REVIEWS = (  # tables of reviews, whose title, text and pictures are those of the review and not of the item
    {"parentasin", "userid", "helpfulvote"},
    {"reviewerid", "reviewtext"},
    {"reviewid", "businessid", "stars"},
)
_TEXT_MARK = re.compile("review|comment|summary|kommentar")


@dataclass(frozen=True)
class Columns:
    """The columns that hold what; an empty name is guessed.

    Args: user, item, time, rating: of the interactions. title, text, image, categories: of the items. zone: time zone
        of times without an offset, such as Europe/Berlin; empty is UTC.
    """

    user: str = ""
    item: str = ""
    time: str = ""
    rating: str = ""
    title: str = ""
    text: str = ""
    image: str = ""
    categories: str = ""
    zone: str = ""

    def given(self) -> dict[str, str]:
        """The columns that are named."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if getattr(self, entry.name)}


def plain(name: str) -> str:
    """A column name without case, blanks, marks and RecBole's type: `userid` of `User_ID:token`."""
    return re.sub(r"[\W_]+", "", name.partition(":")[0].lower())


def _parts(name: str) -> set[str]:
    """The words of a column name, split at marks and at capitals."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", name.partition(":")[0])
    return set(re.split(r"[\W_]+", apart.lower())) - {""}


def find_column(name: str, table: Table, option: str) -> str:
    """The column of a table that a user named, with or without RecBole's type.

    Raises: BundleError listing the columns of the table.
    """
    there = table.probe.columns
    for column in there:
        if name in (column, column.partition(":")[0]):
            return column
    alike = [column for column in there if plain(column) == plain(name)]
    if len(alike) == 1:
        return alike[0]
    raise refused(table.name, f"no column {name!r} for --{option}", f"choose from {', '.join(there)}")


def guess(table: Table, roles: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Column by role; a role without a column is left out.

    Args: roles: those to find, in this order. given: columns that the user named.
    """
    found = {role: find_column(given[role], table, role) for role in roles if role in given}
    names = [name for name in table.probe.columns if name not in found.values()]
    if not table.parts[0].header:
        return found | _by_position(table, [role for role in roles if role not in found], names)
    for way in (_by_name, _by_words):
        for role in roles:
            if role in found:
                continue
            free = [name for name in names if name not in found.values() and _suits(table.probe[name], role)]
            column = way(role, free)
            if column:
                found[role] = column
    if "time" in roles and "time" not in found:
        times = [name for name in names if name not in found.values() and _is_clock(table.probe[name])]
        if len(times) == 1:
            found["time"] = times[0]
    return found


def _by_name(role: str, names: Sequence[str]) -> str | None:
    """The column with the foremost known name of a role."""
    known = {plain(name): name for name in reversed(names)}
    return next((known[word] for word in _KNOWN[role].split() if word in known), None)


def _by_words(role: str, names: Sequence[str]) -> str | None:
    """The only column whose name contains a word of a role and no word that marks a review."""
    words = set(_WORDS[role].split())
    others = {word for other in _WORDS if other in ("user", "item") and other != role for word in _WORDS[other].split()}
    fits = [name for name in names if _parts(name) & words and not _TEXT_MARK.search(plain(name))]
    if role in ("user", "item"):
        fits = [name for name in fits if not _parts(name) & others]
    return fits[0] if fits and (len(fits) == 1 or role in ("user", "item")) else None


def _suits(values: pl.Series, role: str) -> bool:
    """Whether a column can have a role: an id is one value, a time is recognised, a rating is a number."""
    nested = values.dtype.is_nested()
    if role in ("user", "item"):
        return not nested and not values.dtype.is_temporal() and not _is_clock(values)
    if role == "time":
        return not nested and recognise(values, enough=HALF) is not None  # too many bad ones are an error later
    if role == "rating":
        numbers = values.cast(pl.Float64, strict=False) if not nested and not values.dtype.is_temporal() else None
        return numbers is not None and numbers.is_not_null().sum() >= 0.9 * values.is_not_null().sum()
    if role == "title":
        return values.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    return not values.dtype.is_numeric() and not values.dtype.is_temporal() and values.dtype != pl.Boolean


def _is_clock(values: pl.Series) -> bool:
    """Whether values are times beyond doubt: datetimes, texts of a date, or numbers of the size of a Unix time."""
    form = recognise(values)
    return form is not None and "order alone" not in form.words


def _by_position(table: Table, roles: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Roles of a table without a header: by values, then in the order user, item, as MovieLens and Amazon write them.

    Amazon's ratings of 2018 have the item first; there the reviewer is known by its leading A and its length.
    """
    probe, found, free = table.probe, {}, list(names)
    if "user" not in roles:
        wanted = [role for role in ITEM_ROLES if role in roles and role not in ("text", "image")]
        return dict(zip(wanted, free, strict=False))
    if "time" in roles:
        clocks = [name for name in free if _is_clock(probe[name])] or free[3:4]
        found |= {"time": clocks[-1]} if clocks else {}
    free = [name for name in free if name not in found.values()]
    shares = {name: probe[name].drop_nulls().str.contains(r"^A[0-9A-Z]{11,20}$").mean() or 0.0 for name in free[:2]}
    if len(free) > 1 and shares[free[0]] < 0.1 and shares[free[1]] > 0.9:
        free[:2] = free[1::-1]
    wanted = [role for role in EVENT_ROLES if role in roles and role not in found]
    return found | dict(zip(wanted, free, strict=False))


def is_review(table: Table) -> bool:
    """Whether title, text and pictures of a table of interactions belong to the review."""
    names = {plain(name) for name in table.probe.columns}
    return any(known <= names for known in _REVIEWS)


def require(table: Table, found: Mapping[str, str], roles: Sequence[str]) -> None:
    """Raises: BundleError naming the first role without a column, and the columns that there are."""
    for role in roles:
        if role not in found:
            there = ", ".join(table.probe.columns)
            raise refused(
                table.name, f"no column found for the {role}; columns: {there}", f"name it with --{role} COLUMN"
            )
