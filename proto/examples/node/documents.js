// Opens a session, edits a text fifty times, and follows every edit in a subscription.
//
//     node documents.js SESSIONS DOCUMENTS
//
// SESSIONS and DOCUMENTS are the addresses (HOST:PORT) of the two services, or of proxies to them.
'use strict';

const assert = require('node:assert/strict');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const UPDATES = 50;
// Every call has a deadline: without one a call may wait for ever.
const WAIT_MS = 30_000;

const definition = protoLoader.loadSync(['session.proto', 'statesync.proto'], {
  includeDirs: [path.join(__dirname, '..', '..', 'proto')],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
});
const { session, aetherflow } = grpc.loadPackageDefinition(definition);

function connect(Client, address) {
  const client = new Client(address, grpc.credentials.createInsecure());
  // A server, or a proxy, that is just starting is waited for.
  return new Promise((resolve, reject) => {
    client.waitForReady(Date.now() + WAIT_MS, (error) => (error ? reject(error) : resolve(client)));
  });
}

function call(client, method, request) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + WAIT_MS };
    client[method](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// The text after an operation. Positions count UTF-16 units, as JavaScript's strings do.
function edited(text, data) {
  for (const edit of [JSON.parse(data.toString())].flat()) {
    const { pos = 0, del = 0, ins = '' } = edit;
    text = text.slice(0, pos) + ins + text.slice(pos + del);
  }
  return text;
}

async function editAndFollow(documents, sessionId) {
  const creation = { name: 'notes', type: 'text', created_by: 'ada', content: Buffer.from('> ') };
  const { document } = await call(documents, 'CreateDocument', creation);

  const subscription = { doc_id: document.id, user_id: 'bob' };
  const stream = documents.SubscribeDocument(subscription, { deadline: Date.now() + 2 * WAIT_MS });
  const events = stream[Symbol.asyncIterator]();
  // The first event carries the state; every operation after it follows exactly once.
  const first = (await events.next()).value;
  let text = first.document.content.toString();

  let version = document.version;
  for (let number = 0; number < UPDATES; number += 1) {
    const edit = { pos: 2 + number, ins: String(number % 10) };
    const operation = {
      doc_id: document.id,
      user_id: 'ada',
      session_id: sessionId,
      type: 'insert',
      data: Buffer.from(JSON.stringify(edit)),
      prev_version: version,
    };
    const answer = await call(documents, 'ApplyOperation', { operation });
    assert.ok(answer.success);
    version = answer.applied_operation.version;
  }

  const seen = [];
  while (seen.length < UPDATES) {
    const { value: event, done } = await events.next();
    assert.ok(!done, 'the subscription ended');
    if (event.type === 'operation_applied') {
      seen.push(event.version);
      text = edited(text, event.operation.data);
    }
  }
  // That it was cancelled is told as an error.
  stream.on('error', () => {});
  stream.cancel();
  assert.deepEqual(seen, Array.from({ length: UPDATES }, (_, index) => index + 2));

  const content = (await call(documents, 'GetDocument', { doc_id: document.id })).document.content.toString();
  assert.equal(text, content);
  console.log(`${seen.length} of ${UPDATES} edits seen, in order, and the same text: ${text}`);
}

async function main() {
  const [sessionAddress, documentAddress] = process.argv.slice(2);
  const sessions = await connect(session.SessionService, sessionAddress);
  const documents = await connect(aetherflow.statesync.StateSyncService, documentAddress);

  const request = { user_id: 'ada', client_ip: '127.0.0.1', client_port: 4242 };
  const { session_id } = (await call(sessions, 'CreateSession', request)).session;
  console.log(`session ${session_id}`);
  assert.ok((await call(sessions, 'Heartbeat', { session_id })).success);

  await editAndFollow(documents, session_id);

  assert.ok((await call(sessions, 'DeleteSession', { session_id })).success);
  // What fails is a gRPC status; its code says whether to try again.
  await assert.rejects(call(sessions, 'GetSession', { session_id }), (error) => {
    console.log(`after its end: ${grpc.status[error.code]}: ${error.details}`);
    return error.code === grpc.status.NOT_FOUND;
  });
  sessions.close();
  documents.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
