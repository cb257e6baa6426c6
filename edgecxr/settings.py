"""Settings in YAML files (recipes, the node's configuration): read, checked, and every mistake said with its line."""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgecxr.errors import EdgeCxrError

__all__ = ["line_of", "parse", "read_settings", "sentences"]

Location = Sequence[str | int]
Model = TypeVar("Model", bound=BaseModel)


def read_settings(path: str | Path, model: type[Model], fault: type[EdgeCxrError], noun: str) -> Model:
    """The settings in a YAML file. `noun` says what the file is ("recipe", "configuration").

    Raises `fault` with every problem as one sentence ``<file>:<line>: …``, in the order of the lines.
    """
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise fault(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raw, tree, problem = parse(text, name)
    if problem:
        raise fault(problem)
    if not isinstance(raw, dict):
        keys = ", ".join(list(model.model_fields)[:3])
        raise fault(f"{name}:1: a {noun} is a mapping of keys ({keys}, …), got {type(raw).__name__}")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise fault("\n".join(sentences(error, model, tree, name, noun))) from None


def parse(text: str, name: str) -> tuple[Any, yaml.Node | None, str | None]:
    """The plain value, the tree of nodes (with line numbers), and a sentence where the text is not sound YAML."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        twice = next(_repeated(tree), None) if tree else None
        if twice is not None:
            return None, None, f"{name}:{twice.start_mark.line + 1}: key {twice.value!r} is given twice"
        return yaml.safe_load(text), tree, None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return None, None, f"{name}:{line}: not YAML: {error.problem}"
    except yaml.YAMLError as error:
        return None, None, f"{name}:1: not YAML: {error}"
    except RecursionError:
        return None, None, f"{name}:1: nested too deeply, or within itself"


def _repeated(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Keys that stand twice in one mapping: YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.value != "<<":
                    yield key
                seen.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item)


def line_of(tree: yaml.Node | None, location: Location) -> int:
    """Line (from 1) of the deepest node on the way to `location`; parts that are no key (union tags) are skipped."""
    line, node = 1, tree
    for part in location:
        key, child = _child(node, part)
        if child is None:
            continue
        line, node = (key or child).start_mark.line + 1, child
    return line


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if getattr(key, "value", None) == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None, None


def sentences(
    error: ValidationError, model: type[BaseModel], tree: yaml.Node | None, name: str, noun: str = "recipe"
) -> list[str]:
    """One sentence per problem, in the order of the lines: ``"<file>:<line>: <what was got, what was wanted>"``."""
    found = set()
    for problem in error.errors():
        location, models = _untagged(problem, model)
        found.add((line_of(tree, location), _sentence({**problem, "loc": location}, models, tree, f"the {noun}")))
    return [f"{name}:{line}: {text}" for line, text in sorted(found)]


def _untagged(problem: Mapping[str, Any], model: type[BaseModel]) -> tuple[Location, list[type[BaseModel]]]:
    """The problem's location without the tags of unions, and the models that may stand where it ends.

    Several where a union is not decided. Some tags (`onnx`) are also the name of a field.
    """
    location: Location = problem["loc"]
    kept: list[str | int] = []
    options: list[Any] = [model]
    for number, part in enumerate(location):
        key = number == len(location) - 1 and problem["type"] == "extra_forbidden"
        tagged = [option for option in options if isinstance(part, str) and _has_tag(option, part)]
        below = [deeper for option in options for deeper in _below(option, part)]
        if not key and len(options) > 1 and tagged:
            options = tagged
        elif key or below or len(options) == 1 or isinstance(part, int):
            kept.append(part)
            options = below or options
    return kept, [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _has_tag(option: Any, tag: str) -> bool:
    """Whether `tag` is the only value of one of the model's fields."""
    if not (isinstance(option, type) and issubclass(option, BaseModel)):
        return False
    return any(typing.get_args(field.annotation) == (tag,) for field in option.model_fields.values())


def _sentence(problem: Mapping[str, Any], models: list[type[BaseModel]], tree: yaml.Node | None, whole: str) -> str:
    location: Location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return _unknown_key(str(location[-1]), _name(location[:-1], tree) or whole, models)
    where = _name(location, tree)
    if problem["type"] == "missing":
        return f"{_name(location[:-1], tree) or whole} lacks {str(location[-1])!r}"
    if problem["type"] in ("value_error", "assertion_error"):  # our own checks say what was got themselves
        said = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return f"{where}: {said}" if where else said
    _, _, wanted = str(problem["msg"]).rpartition(" should ")
    return f"{where}: got {problem['input']!r}, wanted {wanted.removeprefix('be ')}"


def _unknown_key(key: str, parent: str, models: list[type[BaseModel]]) -> str:
    valid = sorted({field for found in models for field in found.model_fields})
    close = difflib.get_close_matches(key, valid, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"valid keys are {', '.join(valid)}"
    return f"unknown key {key!r} in {parent}; {hint}"


def _name(location: Location, tree: yaml.Node | None) -> str:
    """``teachers[0].training`` for ``("teachers", 0, "<union tag>", "training")``."""
    name, node = "", tree
    for part in location:
        _, child = _child(node, part)
        if child is not None:
            node = child
        elif part != location[-1]:
            continue
        name += f"[{part}]" if isinstance(part, int) else f".{part}"
    return name.lstrip(".")


def _options(annotation: Any) -> list[Any]:
    """The members of a union, unwrapped of Annotated; anything else is its own only option."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [option for item in typing.get_args(annotation) for option in _options(item)]
    return [annotation]


def _below(option: Any, part: str | int) -> list[Any]:
    if isinstance(option, type) and issubclass(option, BaseModel):
        field = option.model_fields.get(str(part))
        return _options(field.annotation) if field else []
    arguments = typing.get_args(option)
    if not arguments:
        return []
    if isinstance(part, int):
        return _options(arguments[0]) if typing.get_origin(option) in (list, tuple) else []
    return _options(arguments[1]) if typing.get_origin(option) is dict else []
