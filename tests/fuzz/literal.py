"""A value as the code that makes it, without what is as by default: a failing game, to be pasted into rows.py."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any


def as_code(value: object) -> str:
    """Python for it: dataclasses, enums, bytes, and containers of these."""
    if is_dataclass(value):
        return _dataclass_code(value)
    match value:
        case Enum():
            code = f"{type(value).__name__}.{value.name}"
        case bytes():
            code = f'bytes.fromhex("{value.hex()}")'
        case tuple():
            code = f"({''.join(as_code(item) + ', ' for item in value)})"
        case frozenset():
            code = f"frozenset({as_code(tuple(value))})"
        case dict():
            code = f"{{{', '.join(f'{as_code(key)}: {as_code(item)}' for key, item in value.items())}}}"
        case _:
            code = repr(value)
    return code


def _dataclass_code(value: Any) -> str:
    given = {field.name: getattr(value, field.name) for field in fields(value)}
    said = (
        f"{field.name}={as_code(given[field.name])}" for field in fields(value) if given[field.name] != _default(field)
    )
    return f"{type(value).__name__}({', '.join(said)})"


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()
