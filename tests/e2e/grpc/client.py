"""Calls the wallet service with a stock gRPC client, which learns the messages through reflection.

Reads one JSON request per line from standard input and writes one JSON response per line:
{"method": "Deposit", "message": {...}, "metadata": {...}, "timeout": 5} -> {"code": "OK", "message": {...}, ...}
{"open": "a", "method": "WatchBalance", ...} begins the stream "a" -> {"code": "OK"}
{"open": "b", "method": "PostStream", "sends": true, ...} begins a stream in both directions -> {"code": "OK"}
{"send": "b", "message": {...}} sends a message on it -> {"code": "OK"}
{"finish": "b"} ends its messages -> {"code": "OK"}
{"next": "a"} waits for its next message -> {"code": "OK", "message": {...}}, or the status that ends it
{"cancel": "a"} ends it -> {"code": "OK"}
"""
import json
import queue
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2 as alpha
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
pool = DescriptorPool(database)
service = pool.FindServiceByName("revwallet.v1.WalletService")
DETAILS = {
    "ErrorInfo": error_details_pb2.ErrorInfo,
    "BadRequest": error_details_pb2.BadRequest,
    "RetryInfo": error_details_pb2.RetryInfo,
    "RequestInfo": error_details_pb2.RequestInfo,
}


def services(version):
    """The services that reflection lists; v1 has the messages of v1alpha."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=alpha.ServerReflectionRequest.SerializeToString,
        response_deserializer=alpha.ServerReflectionResponse.FromString,
    )
    answer = next(call(iter([alpha.ServerReflectionRequest(list_services="")])))
    return sorted(found.name for found in answer.list_services_response.service)


def details(error):
    status = rpc_status.from_call(error)
    found = {}
    for any_message in status.details if status else []:
        name = any_message.type_url.rsplit(".", 1)[-1]
        message = DETAILS[name]()
        any_message.Unpack(message)
        found[name] = json_format.MessageToDict(message)
    return found


streams = {}
outgoing = {}


def fields(response):
    return json_format.MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def open_stream(request):
    method = service.methods_by_name[request["method"]]
    sends = request.get("sends", False)
    begin = channel.stream_stream if sends else channel.unary_stream
    call = begin(
        f"/{service.full_name}/{method.name}",
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    if sends:
        messages = queue.SimpleQueue()
        outgoing[request["open"]] = (messages, GetMessageClass(method.input_type))
        message = iter(messages.get, None)
    else:
        message = GetMessageClass(method.input_type)(**request["message"]).SerializeToString()
    metadata = tuple(request.get("metadata", {}).items())
    streams[request["open"]] = call(message, metadata=metadata, timeout=request.get("timeout"))
    return {"code": "OK"}


def send(name, message):
    messages, factory = outgoing[name]
    messages.put(json_format.ParseDict(message, factory()).SerializeToString())
    return {"code": "OK"}


def next_message(stream):
    try:
        return {"code": "OK", "message": fields(next(stream))}
    except StopIteration:
        return {"code": "ENDED"}
    except grpc.RpcError as error:
        return failure(error)


def failure(error):
    return {"code": error.code().name, "details": error.details(), "rich": details(error)}


def call(request):
    if "open" in request:
        return open_stream(request)
    if "send" in request:
        return send(request["send"], request["message"])
    if "finish" in request:
        outgoing[request["finish"]][0].put(None)
        return {"code": "OK"}
    if "next" in request:
        return next_message(streams[request["next"]])
    if "cancel" in request:
        streams.pop(request["cancel"]).cancel()
        return {"code": "OK"}
    if "reflection" in request:
        return {"code": "OK", "services": services(request["reflection"])}
    if "raw" in request:
        method = channel.unary_unary(request["raw"])
        message, factory = bytes.fromhex(request.get("bytes", "")), None
    else:
        method = service.methods_by_name[request["method"]]
        factory = GetMessageClass(method.output_type)
        message = GetMessageClass(method.input_type)(**request["message"]).SerializeToString()
        method = channel.unary_unary(f"/{service.full_name}/{method.name}")
    options = {
        "metadata": tuple(request.get("metadata", {}).items()),
        "timeout": request.get("timeout", 20),
        "compression": grpc.Compression.Gzip if request.get("gzip") else None,
    }
    try:
        response, running = method.with_call(message, **options)
        headers = {key: value for key, value in running.initial_metadata() if isinstance(value, str)}
        response = factory.FromString(response) if factory else None
        return {"code": "OK", "message": fields(response) if factory else {}, "headers": headers}
    except grpc.RpcError as error:
        return failure(error)


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
