-- The Workflow of a run that others submitted; of a run that Periplus submitted, its name is the run's id.
ALTER TABLE run
    ADD COLUMN namespace     text,
    ADD COLUMN workflow      text,
    ADD COLUMN workflow_uid  text;
