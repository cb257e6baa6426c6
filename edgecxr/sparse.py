"""Settings that grow without changing what was written before: later keys are left out while nobody sets them.

The digest of a build stage is taken over its settings as they are written. A key that came later, and is not used,
must not make hours of cached training anew.
"""

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from edgecxr.spec import Strict

__all__ = ["Sparse"]


class Sparse(Strict):
    """A strict model that does not write the keys named in `later` where they hold their defaults."""

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {name for name in self.later if getattr(self, name) == fields[name].get_default()}
        return {name: value for name, value in handler(self).items() if name not in unset}
