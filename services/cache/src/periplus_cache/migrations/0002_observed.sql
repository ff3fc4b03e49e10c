-- Of an attempt: the pipeline if others submitted the Workflow (else NULL), how long it ran, and in how many pods.
ALTER TABLE attempt
    ADD COLUMN observed_pipeline text,
    ADD COLUMN duration          interval NOT NULL DEFAULT '0',
    ADD COLUMN pods              int      NOT NULL DEFAULT 0;
CREATE INDEX attempt_observed ON attempt (project, finished_at) WHERE observed_pipeline IS NOT NULL;
