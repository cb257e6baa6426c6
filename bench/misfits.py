"""What the refusal of other pictures lets through: drawn misfits, and any real pictures given, as nameless radiographs.

The number: how many of each kind are refused, by the bundle's own gate on the embedding and by the reader.

    python bench/misfits.py [--bundle FILE.cxr] [--seeds 5] [PICTURE …]
"""

import argparse
from pathlib import Path

import harness
from rich.console import Console
from rich.table import Table

from edgecxr.bundle import default_bundle_path
from edgecxr.phantom import OTHER_KINDS, other
from edgecxr.runtimes.screener import Screener


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path, help="PNG, TIFF or JPEG files")
    parser.add_argument("--bundle", help="the shipped one where not given")
    parser.add_argument("--seeds", type=int, default=5, help="drawings of each kind")
    arguments = parser.parse_args()
    with Screener(arguments.bundle) as screener:
        drawn = {kind: sum(refused(screener, kind, seed) for seed in range(arguments.seeds)) for kind in OTHER_KINDS}
        given = {path.name: screener.screen(path) for path in arguments.pictures}
    pictures = {name: None if result.reason is None else result.reason.value for name, result in given.items()}
    path = harness.write_result(
        "misfits",
        {"seeds": arguments.seeds},
        {"drawn": drawn, "pictures": pictures},
        bundle=arguments.bundle or default_bundle_path(),
    )
    show(drawn, pictures, arguments.seeds)
    Console().print(f"stored in {path}", style="dim")


def refused(screener: Screener, kind: str, seed: int) -> bool:
    return screener.screen(other(seed, kind)).status == "refused"


def show(drawn: dict[str, int], pictures: dict[str, str | None], seeds: int) -> None:
    table = Table("kind", "refused", title=f"{sum(drawn.values())} of {seeds * len(drawn)} drawn misfits are refused")
    for kind, number in drawn.items():
        table.add_row(kind, f"{number} of {seeds}")
    for name, reason in pictures.items():
        table.add_row(name, reason or "let through")
    Console().print(table)


if __name__ == "__main__":
    main()
