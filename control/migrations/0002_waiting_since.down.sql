ALTER TABLE conflicts DROP COLUMN pending_since;
