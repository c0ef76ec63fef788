"""A small bundle whose every text tries to become markup, a script, a formula or a command of a terminal.

A script that runs sets `window.struck`. Every address leads to a host that does not exist.
"""

import itertools
from pathlib import Path

import odd_bundles
import polars as pl

OUTSIDE = "outside.invalid"
STRIKE = "window.struck=1"
TEXTS = (
    f"<script>{STRIKE}</script>",
    f"</script></style></textarea></title><script>{STRIKE}</script>",
    f'<img src=x onerror="{STRIKE}"> (1999)',
    f"\"'><svg/onload={STRIKE}>",
    f"' onmouseover='{STRIKE}' autofocus onfocus='{STRIKE}",
    f"[words](javascript:{STRIKE})",
    f"![picture](https://{OUTSIDE}/a.png)",
    f"<https://{OUTSIDE}/b> https://{OUTSIDE}/c www.{OUTSIDE} me@{OUTSIDE}",
    "~~gone~~ **bold** _a_ `code` {raw}`html` [^1] # head | cell",
    r"$\frac{1}{0$ $$ \input{/etc/passwd} $x$",
    "\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b2J\x00 \x08\u202eback",
    f'=HYPERLINK("https://{OUTSIDE}/d")',
    "@SUM(1+1)|cmd",
    "-->]]><!--<![CDATA[",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &#60;i&#62; \\",
    "one\r\n\r\n<script>\n\ntwo\u2028three",
)
FOLDER = f"\x1b[31m<img src=x onerror={STRIKE}> $x^{{ ~~y~~ [z](javascript:{STRIKE}) 'q' \"r\" %41"
MODALITY = f"<img src=x onerror={STRIKE}> $x^{{ ~~y~~ `z`"


def write(parent: Path) -> Path:
    """Write the bundle into a folder with a hostile name below `parent`; returns that folder."""
    rows = odd_bundles.walks(40, len(TEXTS), 8)
    features = {name: odd_bundles.vectors(len(TEXTS), 16) for name in ("text", MODALITY)}  # no encoder is needed
    root = odd_bundles.write(parent / FOLDER, rows, len(TEXTS), features)
    ids = [f"{number}{text}" for number, text in enumerate(TEXTS)]
    users = [f"{text}{number}" for number, text in zip(range(40), itertools.cycle(TEXTS))]
    pl.DataFrame(
        [(users[user], ids[item], time) for user, item, time in rows],
        schema=["user_id", "item_id", "timestamp"],
        orient="row",
    ).write_parquet(root / "interactions.parquet")
    kinds = [[TEXTS[place % 7], TEXTS[(place + 3) % len(TEXTS)]] for place in range(len(TEXTS))]
    pl.DataFrame({"item_id": ids, "title": TEXTS, "categories": kinds}).write_parquet(root / "items.parquet")
    return root
