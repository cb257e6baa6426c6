"""Where a network looks on average: the mean of the maps that `edgecxr explain` wrote, as one picture without any film.

Each map is divided by the sum of its absolute values first, so that every film counts alike.

    edgecxr explain TEACHER-FOLDER FILMS --method lrp --finding covid --out maps
    python bench/mean_maps.py maps.png "COVID-19, LRP=maps" ["PNEUMONIA, LRP=other-maps" ...]
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("agg")
from matplotlib import pyplot

Panel = tuple[NDArray[np.float64], bool, int]  # mean map, whether it has a sign, films


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("panels", nargs="+", metavar="TITLE=FOLDER", help="folders of NPZ files of one finding each")
    arguments = parser.parse_args()
    drawn = {title: mean_map(Path(folder)) for title, _, folder in (item.rpartition("=") for item in arguments.panels)}
    draw(drawn, arguments.picture)
    print(f"{arguments.picture}: {', '.join(f'{title}, {panel[2]} films' for title, panel in drawn.items())}")


def mean_map(folder: Path) -> Panel:
    """Mean of all maps of `folder`; each (h, w) covers the whole square input."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise SystemExit(f"no NPZ file in {folder}; make some with edgecxr explain")
    maps, kinds = [], set()
    for file in files:
        with np.load(file) as content:
            maps.append(content["map"].astype(np.float64))
            kinds.add((str(content["finding"]), str(content["method"]), bool(content["signed"])))
    if len(kinds) > 1:
        raise SystemExit(f"{folder} holds {sorted(kinds)}; give one finding and method a folder")
    shares = [values / total for values in maps if (total := np.abs(values).sum()) > 0]
    return np.mean(shares, axis=0), kinds.pop()[2], len(shares)


def draw(panels: dict[str, Panel], picture: Path) -> None:
    figure, places = pyplot.subplots(1, len(panels), figsize=(2.6 * len(panels), 2.9), squeeze=False)
    for place, (title, (values, signed, films)) in zip(places[0], panels.items(), strict=True):
        limit = float(np.quantile(np.abs(values), 0.995))
        limits = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "inferno", "vmin": 0.0}
        place.imshow(values, interpolation="nearest", **limits)
        place.set_title(f"{title}\n{films} films", fontsize=8)
        place.set_axis_off()
    figure.savefig(picture, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
