"""One operation of the API: from an HTTP request to a call of a function, and its answer back.

An operation is an async function whose signature says everything: keyword-only arguments are the path's and
the query's, `body` is the request's struct, the return annotation is the answer's. The served schema is made
of the same signatures (see `openapi`), so it cannot say anything else.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from vxagent.errors import HostError, Invalid, VxagentError, mend_lack
from vxagent.protocol.answers import Answer, Failure, Problem
from vxagent.protocol.requests import Request as Body
from vxagent.protocol.shape import Shape
from vxagent.runtime import trail
from vxagent.runtime.loop import Agent

log = logging.getLogger(__name__)

BODY_LIMIT = 1 << 20  # bytes
DOCUMENT_LIMIT = 16 << 20  # bytes of a body that holds a whole desired state

T = TypeVar("T", bound=Answer)
F = TypeVar("F", bound=Callable[..., Awaitable[object]])


@dataclass(frozen=True, slots=True)
class Rows(Generic[T]):
    """A list that is encoded while it is read, one object a line.

    Attributes:
        read: gives the list in batches; it and its iterator are called off the event loop.
    """

    read: Callable[[], Iterable[list[T]]]


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is no JSON of ours."""

    content: str | bytes
    media_type: str


class TooLarge(Invalid):
    """A body beyond the limit."""

    http_status = 413


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What the API does at one method and path.

    Attributes:
        does: one line for people.
        path_arguments: names in the path.
        query: name → annotation of what may stand in the query.
        body: the shape of the request's body, or None.
        limit: bytes that the body may have.
        answers: the annotation of what it returns.
        media_types: in which an answer can come.
        changes: something, so that it is logged who asked for it.
    """

    method: str
    path: str
    call: Callable[..., Awaitable[object]]
    does: str
    path_arguments: tuple[str, ...]
    query: dict[str, Any]
    body: Shape[Any] | None
    limit: int
    answers: Any
    media_types: tuple[str, ...]
    changes: bool

    async def serve(self, agent: Agent, request: Request) -> Response:
        """Answer one request; whatever goes wrong is answered too."""
        arguments: dict[str, object] = {name: request.path_params[name] for name in self.path_arguments}
        try:
            arguments |= self._query(request)
            if self.body is not None:
                arguments["body"] = self.body.from_json(await _body(request, self.limit) or b"{}")
            answer = await self.call(agent, **arguments)
            await self._note(request, arguments, trail.outcome_of(answer))
            return await _answer(agent, answer)
        except VxagentError as exc:
            await self._note(request, arguments, f"refused: {exc}")
            return failure(type(exc).__name__, str(exc), exc.http_status, exc.exit_code)
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        except Exception as exc:
            if isinstance(exc, OSError) and mend_lack(exc.errno):
                lack = HostError.of(f"{self.method} {self.path} failed", exc)
                await self._note(request, arguments, f"refused: {lack}")
                return failure("HostError", str(lack), lack.http_status)
            log.exception("%s %s failed", self.method, self.path)
            await self._note(request, arguments, f"failed: {type(exc).__name__}: {exc}")
            return failure("Error", f"the agent failed ({type(exc).__name__}: {exc}); its log says more", 500)

    async def _note(self, request: Request, arguments: Mapping[str, object], outcome: str) -> None:
        if self.changes:
            await trail.note(request, arguments.get("body"), outcome)

    def _query(self, request: Request) -> dict[str, str]:
        given = dict(request.query_params)
        for name, value in given.items():
            if name not in self.query:
                raise Invalid(name, None, "is not a known parameter")
            choices = choices_of(self.query[name])
            if choices and value not in choices:
                raise Invalid(name, value, f"must be {' or '.join(choices)}")
        return given


@dataclass(frozen=True, slots=True)
class Operations:
    """A table of operations; `at` fills it."""

    table: list[Operation] = field(default_factory=list)

    def at(
        self,
        method: str,
        path: str,
        *,
        limit: int = BODY_LIMIT,
        media_types: tuple[str, ...] = ("application/json",),
        changes: bool | None = None,
    ) -> Callable[[F], F]:
        """Make the function below the operation at this method and path; what is no GET changes something, unless said
        otherwise."""

        def add(call: F) -> F:
            hints = get_type_hints(call)
            in_path = tuple(name for name in inspect.signature(call).parameters if f"{{{name}}}" in path)
            body = hints.get("body")
            self.table.append(
                Operation(
                    method=method,
                    path=path,
                    call=call,
                    does=(inspect.getdoc(call) or "").partition("\n")[0],
                    path_arguments=in_path,
                    query={n: hints[n] for n in hints if n not in (*in_path, "agent", "body", "return")},
                    body=None if body is None else Shape[Body](body),
                    limit=limit,
                    answers=hints["return"],
                    media_types=media_types,
                    changes=method != "GET" if changes is None else changes,
                )
            )
            return call

        return add

    def by_path(self) -> dict[str, dict[str, Operation]]:
        """Path → method → operation."""
        found: dict[str, dict[str, Operation]] = {}
        for operation in self.table:
            found.setdefault(operation.path, {})[operation.method] = operation
        return found


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values of a `Literal`, also where None is one more; () for any other annotation."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(c for part in get_args(annotation) if part is not NoneType for c in choices_of(part))


def failure(
    kind: str, message: str, status: int, exit_code: int = 1, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer that says what went wrong, in one line."""
    line = " ".join(message.splitlines())
    problem = Failure(error=Problem(type=kind, message=line, exit_code=exit_code))
    return Response(_line(problem), status, headers=headers, media_type="application/json")


async def _body(request: Request, limit: int) -> bytes:
    """The request's body. Raises TooLarge as soon as it is beyond the limit."""
    too_large = TooLarge("body", None, f"is larger than {limit} bytes")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


async def _answer(agent: Agent, answer: object) -> Response:
    match answer:
        case Rows():
            chunks = _stream(agent, answer)
            first = await anext(chunks)  # what is wrong is mostly wrong before anything was sent
            return StreamingResponse(_again(first, chunks), media_type="application/json")
        case Text(content=content, media_type=media_type):
            return Response(content, media_type=media_type)
    return Response(_line(answer), media_type="application/json")


async def _again(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _stream(agent: Agent, rows: Rows[Any]) -> AsyncIterator[bytes]:
    """`[`, one object a line, `]`; a batch is read and encoded off the event loop when the client has room for it."""
    batches = await agent.read(lambda: iter(rows.read()))
    encode = msgspec.json.Encoder().encode
    before = b"[\n"
    while True:
        batch = await agent.read(lambda: _encoded(next(batches, None), encode))
        if batch is None:
            break
        if batch:
            yield before + batch
            before = b",\n"
    yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _encoded(batch: list[Any] | None, encode: Callable[[Any], bytes]) -> bytes | None:
    return None if batch is None else b",\n".join(map(encode, batch))


def _line(answer: object) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


OPERATIONS = Operations()
"""Those of the agent's API; who has some puts them in as it is imported."""
