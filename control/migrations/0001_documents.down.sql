-- Everything that 0001 made, and all documents with it.
DROP TABLE locks, conflicts, readers, operations, snapshots, documents;
