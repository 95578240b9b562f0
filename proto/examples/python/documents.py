"""Opens a session, edits a text fifty times, and follows every edit in a subscription.

Usage: documents.py SESSIONS DOCUMENTS

SESSIONS and DOCUMENTS are the addresses (HOST:PORT) of the two services, or of proxies to them.
"""

import json
import sys

import grpc
import session_pb2
import session_pb2_grpc
import statesync_pb2
import statesync_pb2_grpc

UPDATES = 50
# Every call has a deadline: without one a call may wait for ever.
WAIT_S = 30


def connect(address):
    channel = grpc.insecure_channel(address)
    # A server, or a proxy, that is just starting is waited for.
    grpc.channel_ready_future(channel).result(timeout=WAIT_S)
    return channel


def edited(text, data):
    """The text after an operation. Positions count UTF-16 units: in ASCII, as here, they are Python's."""
    edits = json.loads(data)
    for edit in edits if isinstance(edits, list) else [edits]:
        position = edit.get("pos", 0)
        text = text[:position] + edit.get("ins", "") + text[position + edit.get("del", 0) :]
    return text


def edit_and_follow(documents, session_id):
    creation = statesync_pb2.CreateDocumentRequest(name="notes", type="text", created_by="ada", content=b"> ")
    document = documents.CreateDocument(creation, timeout=WAIT_S).document

    subscription = statesync_pb2.SubscribeDocumentRequest(doc_id=document.id, user_id="bob")
    events = documents.SubscribeDocument(subscription, timeout=2 * WAIT_S)
    # The first event carries the state; every operation after it follows exactly once.
    text = next(events).document.content.decode()

    version = document.version
    for number in range(UPDATES):
        edit = {"pos": 2 + number, "ins": str(number % 10)}
        operation = statesync_pb2.Operation(
            doc_id=document.id,
            user_id="ada",
            session_id=session_id,
            type="insert",
            data=json.dumps(edit).encode(),
            prev_version=version,
        )
        request = statesync_pb2.ApplyOperationRequest(operation=operation)
        answer = documents.ApplyOperation(request, timeout=WAIT_S)
        assert answer.success, answer
        version = answer.applied_operation.version

    seen = []
    for event in events:
        if event.type == "operation_applied":
            seen.append(event.version)
            text = edited(text, event.operation.data)
        if len(seen) == UPDATES:
            break
    events.cancel()
    assert seen == list(range(2, 2 + UPDATES)), seen

    request = statesync_pb2.GetDocumentRequest(doc_id=document.id)
    content = documents.GetDocument(request, timeout=WAIT_S).document.content.decode()
    assert text == content, (text, content)
    print(f"{len(seen)} of {UPDATES} edits seen, in order, and the same text: {text}")


def main():
    session_address, document_address = sys.argv[1:]
    with connect(session_address) as session_channel, connect(document_address) as document_channel:
        sessions = session_pb2_grpc.SessionServiceStub(session_channel)
        documents = statesync_pb2_grpc.StateSyncServiceStub(document_channel)

        request = session_pb2.CreateSessionRequest(user_id="ada", client_ip="127.0.0.1", client_port=4242)
        session_id = sessions.CreateSession(request, timeout=WAIT_S).session.session_id
        print(f"session {session_id}")
        assert sessions.Heartbeat(session_pb2.HeartbeatRequest(session_id=session_id), timeout=WAIT_S).success

        edit_and_follow(documents, session_id)

        assert sessions.DeleteSession(session_pb2.DeleteSessionRequest(session_id=session_id), timeout=WAIT_S).success
        # What fails is a gRPC status; its code says whether to try again.
        try:
            sessions.GetSession(session_pb2.GetSessionRequest(session_id=session_id), timeout=WAIT_S)
            raise AssertionError("a session that was deleted is still there")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            print(f"after its end: {error.code().name}: {error.details()}")


main()
