-- The run that a run reproduces, and of a reproduction of one step, the step's path there; empty if it reproduces none.
ALTER TABLE run
    ADD COLUMN reproduces      text NOT NULL DEFAULT '',
    ADD COLUMN reproduced_step text NOT NULL DEFAULT '';

-- What a run does without the cache, as JSON: its manifest with its library templates, the digests of its images and the
-- values of its parameters. It is kept as long as the run. Runs of before this table have none.
CREATE TABLE resolved_manifest (
    run      text PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    manifest text NOT NULL
);
