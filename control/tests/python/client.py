"""A client that knows nothing but the address: it learns the services by reflection, then uses them."""

import sys
import uuid

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Service:
    """The methods of one service, found by reflection."""

    def __init__(self, address, name):
        self.channel = grpc.insecure_channel(address)
        database = ProtoReflectionDescriptorDatabase(self.channel)
        assert name in database.get_services(), (name, list(database.get_services()))
        self.service = descriptor_pool.DescriptorPool(database).FindServiceByName(name)

    def call(self, method, **fields):
        found = self.service.methods_by_name[method]
        request = message_factory.GetMessageClass(found.input_type)
        answer = message_factory.GetMessageClass(found.output_type)
        kind = self.channel.unary_stream if found.server_streaming else self.channel.unary_unary
        rpc = kind(
            f"/{self.service.full_name}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return rpc(request(**fields), timeout=20)


def refused(call, code):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"the call should have ended with {code}")


def reflection_v1_answers(address, name):
    """The v1 service has the same messages as v1alpha under another name."""
    channel = grpc.insecure_channel(address)
    stream = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
    (answer,) = stream(iter([request]), timeout=20)
    (encoded, *_) = answer.file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(encoded).service, answer


def healthy(address, name):
    stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(address))
    for service in ("", name):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (service, answer)


def sessions(address):
    name = "session.SessionService"
    healthy(address, name)
    reflection_v1_answers(address, name)
    service = Service(address, name)
    created = service.call("CreateSession", user_id="ada", client_ip="127.0.0.1", client_port=1)
    assert len(created.token) == 44
    got = service.call("GetSession", session_id=created.session.session_id)
    # Over Quantum the statistics are the connection's, which go on.
    got.session.stats.CopyFrom(created.session.stats)
    assert got.session == created.session
    beat = service.call("Heartbeat", session_id=created.session.session_id)
    assert beat.success and beat.remaining_seconds == 1800
    refused(lambda: service.call("GetSession", session_id=str(uuid.uuid4())), grpc.StatusCode.NOT_FOUND)
    refused(lambda: service.call("DeleteSession", session_id="x"), grpc.StatusCode.INVALID_ARGUMENT)
    other = service.call("CreateSession", user_id="eve", client_ip="127.0.0.1").session
    assert service.call("ListSessions", page=1).total == 2
    assert service.call("GetStats").active == 2
    assert service.call("DeleteSession", session_id=other.session_id).success
    return created.session.session_id


def documents(address, session_id):
    name = "aetherflow.statesync.StateSyncService"
    healthy(address, name)
    reflection_v1_answers(address, name)
    service = Service(address, name)
    created = service.call("CreateDocument", name="notes", type="text", created_by="ada", content=b"hello")
    doc_id = created.document.id
    events = service.call("SubscribeDocument", doc_id=doc_id, user_id="ada", session_id=session_id)
    welcome = next(events)
    assert welcome.type == "user_joined" and welcome.document.content == b"hello"
    assert next(events).type == "user_joined"
    operation = {
        "doc_id": doc_id,
        "user_id": "ada",
        "session_id": session_id,
        "type": "insert",
        "data": b'{"pos": 5, "ins": " world"}',
        "prev_version": 1,
    }
    applied = service.call("ApplyOperation", operation=operation)
    assert applied.success and applied.applied_operation.version == 2
    event = next(events)
    assert event.type == "operation_applied" and event.operation == applied.applied_operation
    events.cancel()
    assert service.call("GetDocument", doc_id=doc_id).document.content == b"hello world"
    assert len(service.call("GetOperationHistory", doc_id=doc_id).operations) == 1
    operation["prev_version"] = 7
    refused(lambda: service.call("ApplyOperation", operation=operation), grpc.StatusCode.FAILED_PRECONDITION)
    assert service.call("GetStats").stats.total_operations == 1
    lock = service.call("AcquireLock", doc_id=doc_id, user_id="python").lock
    assert lock.active and lock.fencing == 1
    assert service.call("AcquireLock", doc_id=doc_id, user_id="eve").error
    assert service.call("IsLocked", doc_id=doc_id).locked
    assert service.call("ReleaseLock", doc_id=doc_id, user_id="python").success
    assert service.call("ListDocuments", limit=10).total >= 1
    assert service.call("DeleteDocument", doc_id=doc_id, user_id="python").success


session_address, document_address = sys.argv[1:]
documents(document_address, sessions(session_address))
print("both services work by reflection")
