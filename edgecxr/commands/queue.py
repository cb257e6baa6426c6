"""``edgecxr queue``: what the node holds; also while it runs."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecxr.commands.choices import make_folder, misuse, writing
from edgecxr.commands.image_text import details, refusals_table, table
from edgecxr.commands.terminal import ExitCode, guarded, note, print_json, progress, require_node

if TYPE_CHECKING:
    from edgecxr.runtimes.node.images import Image, Result, State
    from edgecxr.runtimes.node.spool import Spool

__all__ = ["queue"]

queue = typer.Typer(
    name="queue",
    help="List, show, retry, export and forget what a node holds; it may be running.\n\n"
    "Example: `edgecxr queue list --config node.yaml --state quarantined`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

PAGE = 500  # rows read at once
Config = Annotated[Path, typer.Option(help="The node's configuration.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", help="received, screening, decided, refused, delivered or quarantined; may be repeated."),
]
Doubt = Annotated[bool, typer.Option("--doubt", help="Those with a result in doubt.")]
Search = Annotated[str, typer.Option(help="Part of a patient's name or ID, or of an accession number.")]


def list_images(
    config: Config,
    state: States = None,
    search: Search = "",
    doubt: Doubt = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """A table: number, state, age, patient ID, name (or the file's, of a watched folder), decision or error.

    Example: `edgecxr queue list --config node.yaml --search doe`
    """
    with _spool(config) as spool:
        rows = [row for row, _ in zip(_rows(spool, _states(state), search, doubt), range(limit), strict=False)]
        counts = {name.value: number for name, number in spool.counts().items()}
        outstanding = spool.outstanding()
    if as_json:
        images = [_image_json(image, result) for image, result in rows]
        print_json({"counts": counts, "outstanding": outstanding, "images": images})
        return
    for line in table(rows):
        print(line)
    told = ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "no image"
    note(f"{told}; {outstanding} results on their way")


def show(
    image: Annotated[int, typer.Argument(help="Number of the image.", show_default=False)],
    config: Config,
    as_json: AsJson = False,
) -> None:
    """Everything about one image: where it came from, its result, what is still to be delivered.

    Example: `edgecxr queue show 17 --config node.yaml`
    """
    with _spool(config) as spool:
        found = _get(spool, image)
        value = _image_json(found, spool.result(image)) | {
            "path": str(spool.path(found)),
            "deliveries": [
                {"destination": item.destination, "kind": item.kind, "attempts": item.attempts, "error": item.error}
                for item in spool.due(float("inf"), 1_000_000)
                if item.image == image
            ],
        }
    if as_json:
        print_json(value)
        return
    for line in details(value):
        print(line)


def refusals(
    config: Config,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """What was refused at the door and is not among the images: who sent it, the answer, and why. No patient data.

    Example: `edgecxr queue refusals --config node.yaml`
    """
    with _spool(config) as spool:
        rows = spool.door.newest(limit)
    if as_json:
        print_json({"refusals": [vars(row) for row in rows]})
        return
    for line in refusals_table(rows):
        print(line)
    note(f"{sum(row.number for row in rows)} refused at the door in these rows")


def retry(
    config: Config,
    images: Annotated[list[int] | None, typer.Argument(help="Numbers of images.", show_default=False)] = None,
    doubt: Doubt = False,
) -> None:
    """Have images screened again that are quarantined, refused or in doubt. Ends with 1 when some cannot be.

    Example: `edgecxr queue retry 17 18 --config node.yaml`
    """
    from edgecxr.errors import SpoolError

    if not (images or doubt):
        misuse("say which images: their numbers or --doubt")
    failed = 0
    with _spool(config) as spool:
        doubtful = [image.id for image, _ in _rows(spool, None, "", doubt=True)][::-1] if doubt else []
        for image in dict.fromkeys([*(images or ()), *doubtful]):
            try:
                spool.retry(image)
                print(f"{image}  waits for screening")
            except SpoolError as error:
                failed += 1
                print(f"{image}  NOT RETRIED  {error}")
    if failed:
        raise typer.Exit(ExitCode.SOME_REFUSED)


def export(
    folder: Annotated[Path, typer.Argument(help="Where the files go.", show_default=False)],
    config: Config,
    images: Annotated[list[int] | None, typer.Argument(help="Numbers of images.", show_default=False)] = None,
    image: Annotated[list[int] | None, typer.Option("--image", help="The same, as an option.")] = None,
    state: States = None,
    search: Search = "",
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Remove what identifies patients (PS3.15 Basic Profile).")
    ] = False,
    allow_burned_in: Annotated[
        bool, typer.Option("--allow-burned-in", help="De-identify also pictures that may show a name in their pixels.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy images out of the node, as received or de-identified. Ends with 1 when some were not exported.

    Example: `edgecxr queue export study/ 17 18 --config node.yaml --deidentify`
    """
    numbers = [*(images or ()), *(image or ())]
    if not (numbers or state or search):
        misuse("say which images: FOLDER and then their numbers, --state or --search")
    if allow_burned_in and not deidentify:
        misuse("--allow-burned-in belongs to --deidentify")
    with _spool(config) as spool:
        chosen = _chosen(spool, numbers, state, search)
        make_folder(folder)
        results = _export(spool, chosen, folder, _copier(deidentify, allow_burned_in), quiet=as_json)
    failed = [item for item in results if item["error"]]
    if as_json:
        print_json({"images": len(results), "exported": len(results) - len(failed), "results": results})
    else:
        note(f"{len(results) - len(failed)} of {len(results)} images are in {folder}")
    if failed:
        raise typer.Exit(ExitCode.SOME_REFUSED)


def forget(
    destination: Annotated[str, typer.Argument(help="Its name, as it was in the configuration.", show_default=False)],
    config: Config,
) -> None:
    """Give up what waits for a destination that the configuration names no longer: it is never sent there.

    Example: `edgecxr queue forget old-pacs --config node.yaml`
    """
    from edgecxr.runtimes.node.config import load_config

    if destination in [section.name for section in load_config(config).destinations]:
        misuse(f"{config} names the destination {destination}: take it out first, and restart the node")
    with _spool(config) as spool:
        waiting = spool.waiting()
        if destination not in waiting:
            told = ", ".join(f"{number} for {name}" for name, number in waiting.items()) or "nothing"
            misuse(f"no result waits for a destination {destination}; waiting: {told}")
        given_up = spool.give_up(destination)
        for image, number in given_up:
            print(f"{image}  {number} given up  {spool.get(image).state.value}")
    note(f"{sum(number for _, number in given_up)} results for {destination} were given up")


VERBS = (
    (list_images, "list"),
    (show, "show"),
    (refusals, "refusals"),
    (retry, "retry"),
    (export, "export"),
    (forget, "forget"),
)
for verb, name in VERBS:
    queue.command(name)(guarded(verb))


@contextmanager
def _spool(config: Path) -> Iterator["Spool"]:
    """The spool of a configured node. Ends when there is none: looking must not make one."""
    from edgecxr.runtimes.node.config import load_config

    settings = load_config(config)
    place = settings.folder / "spool"
    if not (place / "node.db").exists():
        misuse(f"{config}: there is no spool in {settings.folder}; has the node run?")
    from edgecxr.runtimes.node.spool import Spool

    spool = Spool(place, settings.spool)
    try:
        yield spool
    finally:
        spool.close()


def _states(names: list[str] | None) -> list["State"] | None:
    from edgecxr.runtimes.node.images import State

    known = [state.value for state in State]
    for name in names or ():
        if name not in known:
            misuse(f"there is no state {name}; choose {', '.join(known)}")
    return [State(name) for name in names] if names else None


def _rows(
    spool: "Spool", states: Sequence["State"] | None, search: str, doubt: bool = False
) -> Iterator[tuple["Image", "Result | None"]]:
    """All rows of a selection, newest first, a page at a time."""
    from edgecxr.runtimes.node.listing import Selection

    before = None
    while rows := spool.rows(Selection(states, text=search, limit=PAGE, before=before, doubt=doubt)):
        yield from rows
        before = rows[-1][0].id


def _get(spool: "Spool", image: int) -> "Image":
    from edgecxr.errors import SpoolError

    try:
        return spool.get(image)
    except SpoolError as error:
        misuse(str(error))


def _chosen(spool: "Spool", numbers: list[int], state: list[str] | None, search: str) -> list["Image"]:
    found = [_get(spool, number) for number in dict.fromkeys(numbers)]
    if state or search:
        known = {image.id for image in found}
        found += [image for image, _ in _rows(spool, _states(state), search) if image.id not in known]
    return sorted(found, key=lambda image: image.id)


class _Originals:
    """Copies files as received, named by their number."""

    def write(self, source: Path, folder: Path, image: "Image") -> Path:
        """Raises OSError; a file that is there already is not replaced."""
        from edgecxr.errors import ResultError

        path = folder / f"{image.id:06d}{source.suffix}"
        if path.exists():
            raise ResultError(f"{path.name} is there already")
        shutil.copyfile(source, path)
        return path


class _Deidentified:
    """Copies files without what identifies the patient."""

    def __init__(self, allow_burned_in: bool) -> None:
        """Raises EngineError where dicom-anonymizer is not installed."""
        require_node("dicomanonymizer")
        from edgecxr.runtimes.node.deidentify import Deidentifier

        self._deidentifier = Deidentifier()
        self._allow = allow_burned_in

    def write(self, source: Path, folder: Path, image: "Image") -> Path:
        """Raises ResultError, OSError."""
        return self._deidentifier.write(source, folder, allow_burned_in=self._allow)


def _copier(deidentify: bool, allow_burned_in: bool) -> _Originals | _Deidentified:
    return _Deidentified(allow_burned_in) if deidentify else _Originals()


def _export(
    spool: "Spool", images: Sequence["Image"], folder: Path, copier: _Originals | _Deidentified, *, quiet: bool
) -> list[dict[str, Any]]:
    """One record for each image: number, file, error."""
    from edgecxr.errors import ResultError

    results = []
    with progress("exporting", len(images), quiet=quiet) as step:
        for image in images:
            record: dict[str, Any] = {"image": image.id, "file": None, "error": None}
            try:
                with writing(folder):
                    record["file"] = copier.write(spool.path(image), folder, image).name
            except ResultError as error:
                record["error"] = str(error)
            if not quiet:
                print(f"{image.id}  {record['file'] or 'NOT EXPORTED  ' + str(record['error'])}")
            results.append(record)
            step(str(image.id))
    return results


def _image_json(image: "Image", result: "Result | None") -> dict[str, Any]:
    value = {**vars(image), "state": image.state.value}
    if result is None or image.state.value == "quarantined":
        return value
    found = {"result": result.record, "decided": result.decided, "urgency": result.urgency, "doubt": result.doubt}
    return value | found
