"""``python -m edgecxr`` is the `edgecxr` command."""

from edgecxr.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
