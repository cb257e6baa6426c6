"""``edgecxr verify``: is a bundle whole, and does each engine here reproduce what it promised?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecxr.commands.terminal import ExitCode, print_json, progress

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.bundle.signature import SignedBy

__all__ = ["verify"]


def verify(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle.  [default: the one shipped]")] = None,
    trusted: Annotated[
        list[Path] | None, typer.Option("--trusted", help="A public key that must have signed it; one of several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Check every digest and every member, then run the golden films on each engine of this machine.

    Ends with 0 when each packed precision is reproduced by at least one engine, else with 3; with 2 when it is damaged,
    or bears no signature of a key given with --trusted.

    Example: `edgecxr verify covid3.cxr`
    """
    from edgecxr.bundle import Bundle, default_bundle_path, signature

    opened = Bundle.open(bundle or default_bundle_path())
    opened.verify()
    keys = signature.signers(opened)
    signed_by = signature.check(opened, trusted, shipped=False) if trusted else None
    rows = golden_rows(opened, quiet=as_json)
    if as_json:
        signed = None if signed_by is None else signed_by._asdict()
        print_json(
            {"bundle": opened.source, "digest": opened.digest, "keys": keys, "signed_by": signed, "engines": rows}
        )
    else:
        print(f"{opened.source}: whole, digest {opened.digest[:12]}")
        print(_signed(keys, signed_by, signature.is_shipped(opened)))
        for row in rows:
            print(
                f"{row['engine']} {row['precision']}: {'reproduces the golden set' if row['passed'] else row['reason']}"
            )
    if {row["precision"] for row in rows if row["passed"]} < set(opened.precisions):
        raise typer.Exit(ExitCode.CANNOT)


def _signed(keys: tuple[str, ...], signed_by: "SignedBy | None", shipped: bool) -> str:
    if signed_by is not None:
        return f"signed by {signed_by.name} (key {signed_by.key_id[:12]})"
    if keys:
        return f"says it is signed by key {', '.join(key[:12] for key in keys)}; not checked: give --trusted KEY.pub"
    return "unsigned; it is the one that came with this EdgeCXR" if shipped else "unsigned"


def golden_rows(bundle: "Bundle", *, quiet: bool) -> list[dict[str, Any]]:
    """Per engine and precision: whether it reproduces the golden set here, and why not."""
    from edgecxr.errors import EngineError, KernelError
    from edgecxr.runtimes.registry import ENGINES, open_engine

    rows: list[dict[str, Any]] = []
    pairs = [(engine, precision) for engine in ENGINES for precision in bundle.precisions]
    with progress("golden set", len(pairs), quiet=quiet) as step:
        for engine, precision in pairs:
            row: dict[str, Any] = {"engine": engine, "precision": precision, "passed": True, "reason": ""}
            try:
                open_engine(bundle, engine=engine, precision=precision, point=None).close()
            except (EngineError, KernelError) as error:
                row.update(passed=False, reason=str(error))
            rows.append(row)
            step(engine)
    return rows
