"""Reads a YAML file into dataclasses, and says which entry of it is wrong."""

from collections.abc import Hashable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml


T = TypeVar("T")
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the faster one where libyaml is there


class _Loader(_Base):
    """Refuses a key that stands twice, where YAML would drop the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, kind: type[T]) -> T:
    """Read a YAML file whose entries are the fields of a dataclass.

    Fields may be text, numbers, `bool`, `Literal`, other dataclasses, and tuples and dictionaries of them; a list of the
    file becomes a tuple.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is not YAML, or an entry is not as its field asks; names the file and the entry.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(
            f"{path.name}{place}: {error.problem}. Text that begins with a brace or holds a colon, comma, # or quote must "
            "stand in double quotes."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not YAML in UTF-8: {error}") from None
    return _fit(value, kind, path.name)


def _fit(value: Any, hint: Any, where: str) -> Any:
    """The value as its field asks for it."""
    if is_dataclass(hint):
        return _fit_fields(value, hint, where)  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is dict:
        _require(isinstance(value, dict), where, "lines of the form `name: value`", value)
        key_hint, item_hint = arguments
        return {
            _fit(key, key_hint, f"{where}, the name {key!r}"): _fit(item, item_hint, f"{where}, {key}")
            for key, item in value.items()
        }
    if origin is tuple:
        return _fit_items(value, arguments, where)
    if origin is Literal:
        _require(value in arguments, where, f"one of {', '.join(map(str, arguments))}", value)
    elif hint is float:
        _require(type(value) in (int, float), where, "a number", value)
    elif hint is str:
        _require(isinstance(value, str) and bool(value.strip()), where, "text, in double quotes", value)
    else:
        _require(type(value) is hint, where, {int: "a whole number", bool: "true or false"}[hint], value)
    return value


def _fit_items(value: Any, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    _require(isinstance(value, list), where, "a list", value)
    if hints[-1] is ...:
        hints = hints[:1] * len(value)
    _require(len(value) == len(hints), where, f"a list of {len(hints)}", value)
    names = [item.get("code", number) if isinstance(item, dict) else number for number, item in enumerate(value, 1)]
    return tuple(
        _fit(item, hint, f"{where}, {'entry' if isinstance(item, dict) else 'item'} {name}")
        for name, item, hint in zip(names, value, hints, strict=True)
    )


def _fit_fields(value: Any, kind: type, where: str) -> Any:
    hints = _hints_of(kind)
    _require(isinstance(value, dict), where, f"the fields {', '.join(hints)}", value)
    for name in value:
        if name not in hints:
            raise ValueError(f"{where}: there is no field {name!r}. There are: {', '.join(hints)}.")
    for field in fields(kind):
        if field.default is field.default_factory is MISSING and field.name not in value:
            raise ValueError(f"{where}: the field {field.name!r} is missing.")
    return kind(**{name: _fit(item, hints[name], f"{where}, {name}") for name, item in value.items()})


@cache
def _hints_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _require(holds: bool, where: str, expected: str, value: Any) -> None:
    if not holds:
        shown = "nothing" if value is None else repr(value)
        raise ValueError(f"{where} must be {expected}, not {shown if len(shown) <= 60 else shown[:57] + '...'}.")
