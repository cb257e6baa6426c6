"""``edgecxr demo``: the main job from films to a report, on drawn films or on yours."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecxr.commands.screen import counts
from edgecxr.commands.terminal import counted, note, require_train

if TYPE_CHECKING:
    from edgecxr.export.recipe import Recipe
    from edgecxr.runtimes.screening import Screening

__all__ = ["demo"]

RECIPE = Path(__file__).parents[1] / "recipes" / "demo.yaml"
FIELD = "field"  # the drawn films that are screened, within the demo's folder
FILMS_SEED = 99


def demo(
    data: Annotated[
        Path | None,
        typer.Option(envvar="EDGECXR_DATA", help="Folder of real films with labels.csv.  [default: drawn films]"),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo"),
) -> None:
    """Build a small bundle, verify it, screen a folder of films with it and write a report.

    Example: `edgecxr demo`, or `EDGECXR_DATA=films edgecxr demo`
    """
    require_train()
    from edgecxr.export.pipeline import Build
    from edgecxr.export.recipe import load_recipe

    recipe = load_recipe(RECIPE, data=data)
    note(f"1/3 building {recipe.name} from {recipe.data.folder or 'drawn films'}")
    made = Build(recipe, RECIPE, folder / "work", tell=note).run(folder / "demo.cxr")
    print(made.summary())
    note("2/3 screening a folder of films")
    results = _screen(made.path, _field_films(recipe, folder), folder)
    number = counts(results)
    print(f"{counted(len(results))}: {number['positive']} positive, {number['refused']} refused with a reason")
    print(f"films:   {_told(recipe, folder)}")
    print(f"results: {(folder / 'results.jsonl').resolve()}")
    print(f"report:  {(folder / 'report.html').resolve()}")


def _screen(path: Path, films: list[Path], folder: Path) -> "list[Screening]":
    """Decide on every film in OpenVINO, write results.jsonl, then report.html."""
    from edgecxr.report import write_report
    from edgecxr.runtimes.screener import Screener

    with Screener(path, engine="openvino") as screener:
        results = list(screener.screen_folder(films))
        with (folder / "results.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.writelines(
                json.dumps(item.to_json(), ensure_ascii=False, allow_nan=False) + "\n" for item in results
            )
        note("3/3 writing the report")
        write_report(
            folder / "report.html",
            title="EdgeCXR demo",
            screenings=results,
            evaluation=screener.bundle.evaluation(),
            engines=[screener.engine.describe()],
            manifest=screener.bundle.manifest,
        )
    return results


def _told(recipe: "Recipe", folder: Path) -> str:
    """Where the films lie that are screened."""
    own = recipe.data.folder
    return str((folder / FIELD).resolve()) if own is None else f"{Path(own).resolve()}, its test films"


def _field_films(recipe: "Recipe", folder: Path) -> list[Path]:
    """A clinic's day of drawn DICOM files, or the test films of the user's own folder."""
    from edgecxr.dataset import load_dataset
    from edgecxr.phantom import write_field_folder

    if recipe.data.folder is None:
        write_field_folder(folder / FIELD, seed=FILMS_SEED)
        return [folder / FIELD]
    dataset = load_dataset(recipe.data.folder, labels=recipe.data.labels, heads=recipe.heads)
    return [film.path for film in dataset.films if film.fold in recipe.data.folds.test]
