-- The steps of a retried DAG run again under the same paths: each of its attempts publishes them.
ALTER TABLE published ADD COLUMN outer_attempt integer NOT NULL DEFAULT 0;
ALTER TABLE published DROP CONSTRAINT published_pkey, ADD PRIMARY KEY (run, step, phase, outer_attempt);
