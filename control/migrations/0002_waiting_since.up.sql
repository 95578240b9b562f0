-- The document's version when an operation began to wait: what its session wrote later it had not seen.
ALTER TABLE conflicts ADD COLUMN pending_since bigint;
