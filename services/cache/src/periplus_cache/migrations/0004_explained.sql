-- The pipelines of attempts and entries (NULL: recorded before this version), by which a step is compared with those of its own; and of
-- a step that ran although the cache had outputs of its key, why they were not served.
ALTER TABLE attempt
    ADD COLUMN pipeline        text,
    ADD COLUMN unserved_reason text NOT NULL DEFAULT '';
ALTER TABLE entry ADD COLUMN pipeline text;
