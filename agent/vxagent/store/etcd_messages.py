"""The messages of etcd's API that we use, made at run time: no generated code that binds us to one protobuf.

Numbers and types are those of etcd 3.4's api (etcdserverpb/rpc.proto, mvccpb/kv.proto), which later versions keep.
Fields that we do not use are left out; enums are int32, which is the same on the wire.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from vxagent.store.kv import Compare, Delete, Get, KeyValue, Of, Op, Put, WatchEvent

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint64": _FIELD.TYPE_UINT64,
}
_PACKAGE = "vxagent.etcd"

# message → field → (number, type); [type]: repeated; type|: one of several, of which only one is set
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "KeyValue": {
        "key": (1, "bytes"),
        "create_revision": (2, "int64"),
        "mod_revision": (3, "int64"),
        "value": (5, "bytes"),
        "lease": (6, "int64"),
    },
    "Event": {"type": (1, "int32"), "kv": (2, "KeyValue")},
    "ResponseHeader": {"cluster_id": (1, "uint64"), "member_id": (2, "uint64"), "revision": (3, "int64")},
    "RangeRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "limit": (3, "int64"),
        "revision": (4, "int64"),
    },
    "RangeResponse": {"header": (1, "ResponseHeader"), "kvs": (2, "[KeyValue]"), "more": (3, "bool")},
    "PutRequest": {"key": (1, "bytes"), "value": (2, "bytes"), "lease": (3, "int64")},
    "DeleteRangeRequest": {"key": (1, "bytes"), "range_end": (2, "bytes")},
    "RequestOp": {
        "request_range": (1, "RangeRequest|"),
        "request_put": (2, "PutRequest|"),
        "request_delete_range": (3, "DeleteRangeRequest|"),
    },
    "ResponseOp": {"response_range": (1, "RangeResponse|")},
    "Compare": {
        "result": (1, "int32"),
        "target": (2, "int32"),
        "key": (3, "bytes"),
        "create_revision": (5, "int64|"),
        "mod_revision": (6, "int64|"),
        "range_end": (64, "bytes"),
    },
    "TxnRequest": {"compare": (1, "[Compare]"), "success": (2, "[RequestOp]"), "failure": (3, "[RequestOp]")},
    "TxnResponse": {"header": (1, "ResponseHeader"), "succeeded": (2, "bool"), "responses": (3, "[ResponseOp]")},
    "WatchCreateRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "start_revision": (3, "int64"),
        "watch_id": (7, "int64"),
    },
    "WatchCancelRequest": {"watch_id": (1, "int64")},
    "WatchRequest": {"create_request": (1, "WatchCreateRequest|"), "cancel_request": (2, "WatchCancelRequest|")},
    "WatchResponse": {
        "header": (1, "ResponseHeader"),
        "watch_id": (2, "int64"),
        "created": (3, "bool"),
        "canceled": (4, "bool"),
        "compact_revision": (5, "int64"),
        "cancel_reason": (6, "string"),
        "events": (11, "[Event]"),
    },
    "LeaseGrantRequest": {"TTL": (1, "int64"), "ID": (2, "int64")},
    "LeaseGrantResponse": {"ID": (2, "int64"), "TTL": (3, "int64"), "error": (4, "string")},
    "LeaseRevokeRequest": {"ID": (1, "int64")},
    "LeaseRevokeResponse": {},
    "LeaseKeepAliveRequest": {"ID": (1, "int64")},
    "LeaseKeepAliveResponse": {"ID": (2, "int64"), "TTL": (3, "int64")},
}

# <etcdserverpb>.Compare.CompareResult, CompareTarget; mvccpb.Event.EventType
_EQUAL, _NOT_EQUAL = 0, 3
_CREATE, _MOD = 1, 2
_DELETE = 1


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="etcd.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            bare = kind.strip("[]|")
            described = message.field.add(
                name=field,
                number=number,
                label=_FIELD.LABEL_REPEATED if kind.startswith("[") else _FIELD.LABEL_OPTIONAL,
                type=_SCALARS.get(bare, _FIELD.TYPE_MESSAGE),
            )
            if bare not in _SCALARS:
                described.type_name = f".{_PACKAGE}.{bare}"
            if kind.endswith("|"):
                described.oneof_index = 0
        if any(kind.endswith("|") for _, kind in fields.values()):
            message.oneof_decl.add(name="choice")
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_describe())


@cache
def message(name: str) -> Any:
    """The class of a message; its fields are known to nobody but the table above."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def key_bytes(text: str) -> bytes:
    """A key as it goes to etcd."""
    return text.encode("utf-8", "surrogateescape")


def key_value(kv: Any) -> KeyValue:
    """A KeyValue, from its message."""
    return KeyValue(
        key=kv.key.decode("utf-8", "surrogateescape"),
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        lease=kv.lease,
    )


def event_of(event: Any) -> WatchEvent:
    """A WatchEvent, from its message."""
    return WatchEvent(kv=key_value(event.kv), deleted=event.type == _DELETE)


def compare_message(compare: Compare) -> Any:
    """Its message."""
    made = compare.of is Of.CREATE
    return message("Compare")(
        result=_EQUAL if compare.equal else _NOT_EQUAL,
        target=_CREATE if made else _MOD,
        key=key_bytes(compare.range.key),
        range_end=key_bytes(compare.range.end),
        **{"create_revision" if made else "mod_revision": compare.revision},
    )


def op_message(op: Op) -> Any:
    """Its message, a RequestOp."""
    match op:
        case Get():
            asked = message("RangeRequest")(key=key_bytes(op.range.key), range_end=key_bytes(op.range.end))
            return message("RequestOp")(request_range=asked)
        case Put():
            put = message("PutRequest")(key=key_bytes(op.key), value=op.value, lease=op.lease)
            return message("RequestOp")(request_put=put)
        case Delete():
            gone = message("DeleteRangeRequest")(key=key_bytes(op.range.key), range_end=key_bytes(op.range.end))
            return message("RequestOp")(request_delete_range=gone)
