"""Hard tries to break what the README promises, and a table of how they went: `make soak`.

    python -m soak [--share 0.1] [--output FILE] [DRILL ...]

Each drill makes a stated number of tries; `--share` makes that share of them. The exit code is 1 if anything was lost.
"""

import argparse
import platform
import sys
import time
from pathlib import Path

from rotnet_keras.host import processor
from soak.drills import DRILLS, tallies_of
from soak.tally import Tally


def main() -> int:
    """Do the drills and write the table."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("drills", nargs="*", metavar="DRILL", help=f"of {', '.join(DRILLS)}; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="of the tries")
    parser.add_argument("--output", type=Path, help="where the table goes, as Markdown")
    chosen = parser.parse_args()
    if unknown := set(chosen.drills) - set(DRILLS):
        parser.error(f"no drill {', '.join(unknown)}; there are {', '.join(DRILLS)}")
    names = chosen.drills or list(DRILLS)
    began, tallies = time.time(), []
    for tally in tallies_of(names, chosen.share):
        tallies.append(tally)
        minutes = (time.time() - began) / 60
        told = f"tried {tally.tried}, lost {len(tally.lost)}; {tally.note}"
        print(f"{minutes:.1f} min: {tally.what}: {told}", flush=True)
        for word in tally.lost[:20]:
            print(f"    {word}", flush=True)
    lost = sum(len(tally.lost) for tally in tallies)
    if chosen.output:
        chosen.output.write_text(page(tallies, time.time() - began), encoding="utf-8")
    return 1 if lost else 0


def page(tallies: list[Tally], seconds: float) -> str:
    """The table, with where it was made."""
    rows = [
        f"| {tally.what} | {tally.tried:,} | {tally.tried - len(tally.lost):,} | {len(tally.lost)} | {tally.note} |"
        for tally in tallies
    ]
    return "\n".join(
        [
            "# What it survives",
            "",
            "Written by `make soak`, which tries to break what the README promises.",
            "",
            "| what | tried | survived | lost | |",
            "| --- | ---: | ---: | ---: | --- |",
            *rows,
            "",
            f"{seconds / 60:.0f} minutes on {processor()}, Python {platform.python_version()}, "
            f"{time.strftime('%Y-%m-%d')}.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
