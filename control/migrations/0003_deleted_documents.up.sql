-- Those that wait to be removed for good, and those that are being removed: few among many. Not by the time at which they were deleted,
-- which is that of the last change: an index that has it would be touched by every operation of any document.
CREATE INDEX documents_deleted ON documents (id) WHERE state IN ('deleted', 'purging');
