"""``edgecxr build``: from a recipe and films to a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.commands.terminal import note, print_json, require_train

__all__ = ["build"]


def build(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML).", show_default=False)],
    data: Annotated[Path | None, typer.Option(help="Folder of films with labels.csv, instead of the recipe's.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for the stages; a rerun takes up what is finished there.")] = Path(
        "work"
    ),
    out: Annotated[Path | None, typer.Option(help="The bundle to write.  [default: WORK/NAME/NAME.cxr]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train, distill, quantize, prove and pack one bundle.

    Example: `edgecxr build recipes/covid3.yaml --data films --out covid3.cxr`
    """
    require_train()
    from edgecxr.export.pipeline import Build
    from edgecxr.export.recipe import load_recipe

    made = Build(load_recipe(recipe, data=data), recipe, work, tell=note, silent=as_json).run(out)
    if as_json:
        print_json(made.to_json())
    else:
        print(made.summary())
