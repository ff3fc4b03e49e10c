-- What a run's work tree had and its claim has not.
CREATE TABLE omitted_file (
    project  text  NOT NULL,
    snapshot text  NOT NULL,
    path     bytea NOT NULL,
    reason   text  NOT NULL,
    PRIMARY KEY (project, snapshot, path),
    FOREIGN KEY (project, snapshot) REFERENCES snapshot (project, id) ON DELETE CASCADE
);
