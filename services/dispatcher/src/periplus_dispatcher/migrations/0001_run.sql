-- One row for each run, from the moment that it is accepted.
-- `state` and `outputs` are json, as jsonb refuses the character U+0000, which outputs may contain.
CREATE TABLE run (
    id             text PRIMARY KEY,
    project        text        NOT NULL,
    request_id     text        NOT NULL,
    request_digest text        NOT NULL,
    pipeline       text        NOT NULL,
    phase          text        NOT NULL,
    manifest       text        NOT NULL,
    state          json        NOT NULL,
    snapshot       text        NOT NULL,
    cache_mode     text,
    outputs        json        NOT NULL,
    message        text        NOT NULL DEFAULT '',
    is_cancelled   boolean     NOT NULL DEFAULT false,
    submitted_at   timestamptz NOT NULL,
    finished_at    timestamptz,
    traceparent    text        NOT NULL DEFAULT '',  -- of the submission (W3C Trace Context): its trace goes on after a restart
    UNIQUE (project, request_id)
);

CREATE INDEX run_open ON run (submitted_at) WHERE finished_at IS NULL;
CREATE INDEX run_finished ON run (finished_at);  -- for retention

-- The phases of each step that were published, so that each is published once. `saved` is set for a hit.
CREATE TABLE published (
    run   text     NOT NULL REFERENCES run,
    step  text     NOT NULL,
    phase text     NOT NULL,
    saved interval NOT NULL DEFAULT '0',
    PRIMARY KEY (run, step, phase)
);

-- The answer to each gate, stored before it is sent.
CREATE TABLE gate_answer (
    run    text NOT NULL REFERENCES run,
    node   text NOT NULL,
    answer json NOT NULL,
    PRIMARY KEY (run, node)
);
