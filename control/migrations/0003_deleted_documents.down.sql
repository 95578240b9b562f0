-- What is being removed is not had back.
DELETE FROM operations USING documents WHERE doc_id = id AND state = 'purging';
DELETE FROM documents WHERE state = 'purging';
DROP INDEX documents_deleted;
