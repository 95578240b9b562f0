-- Documents, their logs, snapshots, conflicts and locks.
--
-- What is only carried is kept as it goes over the wire (metadata, operations, conflicts: protobuf); what is searched, ordered or
-- guarded by has a column. Each index names the query that it serves.

-- The row of a document changes with every operation. It is narrow, no index has a column that an operation changes, and its pages
-- keep room, so that such a change stays on its page (HOT) and touches no index.
CREATE TABLE documents (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    type text NOT NULL,
    state text NOT NULL,
    version bigint NOT NULL,
    epoch text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_by text NOT NULL,
    updated_at timestamptz NOT NULL,
    metadata bytea NOT NULL,
    described_version bigint NOT NULL,
    public boolean NOT NULL
) WITH (fillfactor = 70);

-- A page of the list of all documents, in its order.
CREATE INDEX documents_by_creation ON documents (created_at, id);
-- The same for one creator.
CREATE INDEX documents_by_creator ON documents (created_by, created_at, id);

-- The content at some version, apart from the row that changes with every operation.
CREATE TABLE snapshots (
    doc_id uuid PRIMARY KEY REFERENCES documents (id) ON DELETE CASCADE,
    version bigint NOT NULL,
    typed boolean NOT NULL,
    content bytea NOT NULL
);

-- No foreign key: a row is only inserted in the transaction that raises the version of its document, and that fails if there is
-- none; checking it again for each row would cost a lookup and a lock.
--
-- The primary key is the log in its order: loading a document, catching up, the newest operations, the operation of a version. It
-- also keeps two writers from making one version twice.
CREATE TABLE operations (
    doc_id uuid NOT NULL,
    version bigint NOT NULL,
    op_id uuid NOT NULL,
    session_id uuid NOT NULL,
    session_sequence bigint NOT NULL,
    idempotency_key text,
    digest bytea NOT NULL,
    hybrid_time bigint NOT NULL,
    sequence bigint NOT NULL,
    operation bytea NOT NULL,
    yjs_update bytea NOT NULL,
    sent_base bigint,
    sent_data bytea,
    quiet boolean NOT NULL,
    PRIMARY KEY (doc_id, version)
);

-- Whether an operation that comes again was accepted before, by its id or by its key; and that neither is used twice.
CREATE UNIQUE INDEX operations_by_id ON operations (doc_id, op_id);
CREATE UNIQUE INDEX operations_by_key ON operations (doc_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Who may read a document that is not public. The primary key answers which documents a user may read.
CREATE TABLE readers (
    user_id text NOT NULL,
    doc_id uuid NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, doc_id)
);
-- Putting the readers of one document in place of others.
CREATE INDEX readers_by_document ON readers (doc_id);

CREATE TABLE conflicts (
    id uuid PRIMARY KEY,
    doc_id uuid NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    resolved_at timestamptz,
    conflict bytea NOT NULL,
    pending_op uuid,
    pending_key text,
    pending_digest bytea
);
-- The conflicts of a document in their order, and how many there are.
CREATE INDEX conflicts_by_document ON conflicts (doc_id, created_at, id);
-- Those that wait, which are few among many that are decided: read whenever a document is loaded.
CREATE INDEX conflicts_waiting ON conflicts (doc_id, created_at, id) WHERE resolved_at IS NULL;
-- Whether an operation that comes again waits or waited in a conflict.
CREATE INDEX conflicts_by_operation ON conflicts (doc_id, pending_op) WHERE pending_op IS NOT NULL;
CREATE INDEX conflicts_by_key ON conflicts (doc_id, pending_key) WHERE pending_key IS NOT NULL;

-- The lock that was taken last on each document: at most one. It holds until expires_at, which is 1970 once it was released; a
-- lock takes the place of another only with a larger fencing number.
CREATE TABLE locks (
    doc_id uuid PRIMARY KEY REFERENCES documents (id) ON DELETE CASCADE,
    id uuid NOT NULL,
    user_id text NOT NULL,
    session_id text NOT NULL,
    acquired_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    fencing bigint NOT NULL
);
