"""Writes docs/algorithms/catalogue.md: every algorithm and plug-in as `palaestra algorithms` knows them.

python docs/pictures/catalogue.py
"""

from __future__ import annotations

from pathlib import Path

from palaestra.cli.algorithms import plain
from palaestra.training.catalogue import Listing, catalogue

PAGE = Path(__file__).parents[1] / "algorithms" / "catalogue.md"
HEAD = """# Catalogue

Everything that recipes can name, written by `docs/pictures/catalogue.py` from the code. `requires` is what the learner
computes for it beyond log-probs, rewards and advantages; defaults are keys below `algorithm`.
"""


def page() -> str:
    """The page."""
    lines, seam = [HEAD], ""
    for listing in catalogue():
        if listing.seam != seam:
            seam = listing.seam
            lines.append(f"## {seam[0].upper()}{seam[1:]}\n")
        lines.append(_entry(listing))
    return "\n".join(lines)


def _entry(listing: Listing) -> str:
    fills = f" ({', '.join(listing.fills)})" if listing.fills else ""
    facts = [f"**`{listing.name}`**{fills} {listing.summary}.", f"{listing.source}. `{listing.use}`"]
    if listing.requires:
        facts.append("requires " + ", ".join(f"`{need}`" for need in listing.requires))
    if listing.defaults:
        facts.append(" ".join(f"`{key}={plain(value)}`" for key, value in listing.defaults.items()))
    return "- " + "<br>\n  ".join(facts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
