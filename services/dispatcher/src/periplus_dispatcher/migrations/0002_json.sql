-- Outputs may hold a NUL character, which json keeps as it is written and jsonb refuses.
ALTER TABLE run ALTER COLUMN record TYPE json, ALTER COLUMN outputs TYPE json;
ALTER TABLE answer ALTER COLUMN answer TYPE json;
