"""The API's schema, made of the operations and the structs that serve it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args, get_origin

import msgspec

from vxagent.protocol.answers import Failure
from vxagent.runtime.operation import Operation, Operations, Rows, Text, choices_of

Schema = dict[str, Any]


def openapi(operations: Operations, version: str) -> Schema:
    """The OpenAPI 3.1 document of these operations."""
    kinds = list(_kinds(operations.table))
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    by_kind = dict(zip(kinds, schemas, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {"title": "vxagent", "version": version, "description": "The virtual switch of one host."},
        "servers": [{"url": "http://localhost", "description": "the unix socket api.sock in the run dir"}],
        "paths": {
            path: {method.lower(): _operation(operation, by_kind) for method, operation in methods.items()}
            for path, methods in operations.by_path().items()
        },
        "components": {"schemas": components},
    }


def _kinds(table: Iterable[Operation]) -> Iterable[Any]:
    """Every struct that travels, once."""
    found: dict[Any, None] = {Failure: None}
    for operation in table:
        if operation.body is not None:
            found[operation.body.kind] = None
        answer = _struct(operation.answers)
        if answer is not None:
            found[answer] = None
    return found


def _struct(answers: Any) -> Any:
    """The struct in an answer's annotation, or None where it is text."""
    if get_origin(answers) is Rows:
        return get_args(answers)[0]
    structs = [part for part in get_args(answers) or (answers,) if part is not Text]
    return structs[0] if structs else None


def _operation(operation: Operation, schemas: dict[Any, Schema]) -> Schema:
    made: Schema = {
        "operationId": operation.call.__name__,
        "summary": operation.does,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": {
            "200": {"description": "done", "content": _content(operation, schemas)},
            "4XX": _failure("refused", schemas),
            "5XX": _failure("failed", schemas),
        },
    }
    if operation.body is not None:
        made["requestBody"] = {
            "required": any(field.required for field in msgspec.structs.fields(operation.body.kind)),
            "content": {"application/json": {"schema": schemas[operation.body.kind]}},
        }
    return made


def _path_parameters(operation: Operation) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in operation.path_arguments
    ]


def _query_parameters(operation: Operation) -> list[Schema]:
    found = []
    for name, annotation in operation.query.items():
        choices = choices_of(annotation)
        schema = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
        found.append({"name": name, "in": "query", "required": False, "schema": schema})
    return found


def _content(operation: Operation, schemas: dict[Any, Schema]) -> Schema:
    """Media type → schema; text has none but that it is text, JSON that is no struct of ours none at all."""
    struct = _struct(operation.answers)
    in_json: Schema = {} if struct is None else schemas[struct]
    if get_origin(operation.answers) is Rows:
        in_json = {"type": "array", "items": in_json}
    return {
        media: {"schema": in_json if media == "application/json" else {"type": "string"}}
        for media in operation.media_types
    }


def _failure(description: str, schemas: dict[Any, Schema]) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schemas[Failure]}}}
