-- One row a run, from the moment that it is accepted.
CREATE TABLE run (
    id             text PRIMARY KEY,
    project        text        NOT NULL,
    request_id     text        NOT NULL,
    request_digest text        NOT NULL,
    pipeline       text        NOT NULL,
    phase          text        NOT NULL,
    manifest       text        NOT NULL,
    record         jsonb       NOT NULL,
    snapshot       text        NOT NULL,
    cache          text        NOT NULL,
    outputs        jsonb       NOT NULL,
    message        text        NOT NULL DEFAULT '',
    cancelled      boolean     NOT NULL DEFAULT false,
    submitted_at   timestamptz NOT NULL,
    finished_at    timestamptz,
    UNIQUE (project, request_id)
);

CREATE INDEX run_open ON run (submitted_at) WHERE finished_at IS NULL;

-- What was told of each step, so that it is told once.
CREATE TABLE told (
    run   text NOT NULL REFERENCES run,
    step  text NOT NULL,
    phase text NOT NULL,
    saved double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (run, step, phase)
);

-- What each gate was told, before it was told.
CREATE TABLE answer (
    run    text  NOT NULL REFERENCES run,
    node   text  NOT NULL,
    answer jsonb NOT NULL,
    PRIMARY KEY (run, node)
);
