"""``edgecxr install`` and ``edgecxr rollback``: which bundle a node screens with."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from edgecxr.commands.choices import misuse
from edgecxr.commands.terminal import note, print_json

if TYPE_CHECKING:
    from edgecxr.bundle import Bundle
    from edgecxr.bundle.installed import Installation

__all__ = ["install", "rollback"]

Config = Annotated[Path | None, typer.Option("--config", help="The node's configuration.")]
Folder = Annotated[Path | None, typer.Option("--folder", help="The node's folder.  [default: that of --config]")]
Trusted = Annotated[
    list[Path] | None, typer.Option("--trusted", help="A public key to trust, with those of --config; repeatable.")
]
AllowUnsigned = Annotated[bool, typer.Option("--allow-unsigned", help="Take a bundle without a trusted signature.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]


class _Node(NamedTuple):
    folder: Path
    rules: dict[str, Any]  # trusted, allow_unsigned, prove
    named: Path | None  # the bundle that the configuration names, which the node uses instead of an installed one


def install(
    bundle: Annotated[Path, typer.Argument(help="The bundle to install.")],
    config: Config = None,
    folder: Folder = None,
    trusted: Trusted = None,
    allow_unsigned: AllowUnsigned = False,
    as_json: AsJson = False,
) -> None:
    """Check a bundle's digests and signature, run its golden films here, then let the node use it.

    When anything fails the node keeps what it has. A running node changes over by itself.

    Example: `edgecxr install covid3.cxr --config node.yaml`
    """
    from edgecxr.bundle import installed

    node = _node(config, folder, trusted or [], allow_unsigned)
    keep = () if node.named is None else (node.named,)
    done = installed.install(node.folder, bundle, **node.rules, keep=keep)
    _tell(done, node, "installed" if done.changed else "was installed already", as_json)


def rollback(
    config: Config = None,
    folder: Folder = None,
    trusted: Trusted = None,
    allow_unsigned: AllowUnsigned = False,
    as_json: AsJson = False,
) -> None:
    """Let the node use the bundle that it had before, after the same checks. A second rollback goes forward again.

    Before the first that was installed the node had the package's own.

    Example: `edgecxr rollback --config node.yaml`
    """
    from edgecxr.bundle import installed

    node = _node(config, folder, trusted or [], allow_unsigned)
    _tell(installed.rollback(node.folder, **node.rules), node, "in use again", as_json)


def _node(config: Path | None, folder: Path | None, trusted: list[Path], allow_unsigned: bool) -> _Node:
    if config is None:
        if folder is None:
            misuse("which node? give --config node.yaml, or the node's folder with --folder")
        return _Node(folder, {"trusted": trusted, "allow_unsigned": allow_unsigned, "prove": _prover({})}, None)
    from edgecxr.runtimes.node.config import load_config

    settings = load_config(config)
    screening = settings.screening.model_dump(include={"engine", "precision", "point", "threads"})
    rules = {
        "trusted": [*settings.bundle.trusted_keys, *trusted],
        "allow_unsigned": allow_unsigned or settings.bundle.allow_unsigned,
        "prove": _prover(screening),
    }
    return _Node(folder or settings.folder, rules, settings.bundle.path)


def _prover(screening: dict[str, Any]) -> Callable[["Bundle"], None]:
    """Opens a screener as the node will: raises EngineError where no engine reproduces the golden set."""

    def prove(bundle: "Bundle") -> None:
        from edgecxr.runtimes.screener import Screener

        Screener(bundle, **screening).close()

    return prove


def _tell(done: "Installation", node: _Node, verb: str, as_json: bool) -> None:
    signed = None if done.signed_by is None else done.signed_by._asdict()
    if as_json:
        print_json(
            {
                "bundle": str(done.path),
                "digest": done.digest,
                "signed_by": signed,
                "previous": str(done.previous),
                "changed": done.changed,
            }
        )
    else:
        print(f"{done.path}: {verb}, {_origin(done)}; it reproduces its golden set here")
        print(f"before it: {done.previous.name}{_own(done.previous)} (edgecxr rollback)")
    if node.named is not None:
        note(
            f"warning: the configuration names bundle.path {node.named}, which the node uses instead; remove that line"
        )


def _origin(done: "Installation") -> str:
    if done.signed_by is not None:
        return f"signed by {done.signed_by.name}"
    return "the package's own" if _own(done.path) else "without a trusted signature"


def _own(path: Path) -> str:
    from edgecxr.bundle import default_bundle_path

    return ", the package's own" if path == default_bundle_path() else ""
