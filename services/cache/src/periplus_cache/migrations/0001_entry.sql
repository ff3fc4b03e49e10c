-- Digests are kept as their 32 bytes. Inputs, outputs and documents are JSON texts kept as bytes: they may hold
-- any character, and jsonb refuses U+0000.

-- What the steps of a template have in common, once for all of them.
CREATE TABLE template (
    static_key bytea PRIMARY KEY,
    project    text  NOT NULL,
    epoch      int   NOT NULL,
    document   bytea NOT NULL
);

-- Results that can be used again. The fingerprint covers the project.
CREATE TABLE entry (
    fingerprint  bytea       PRIMARY KEY,
    project      text        NOT NULL,
    static_key   bytea       NOT NULL,
    template     text        NOT NULL,
    run          text        NOT NULL,
    step         text        NOT NULL,
    inputs       bytea       NOT NULL,
    outputs      bytea       NOT NULL,
    recorded_at  timestamptz NOT NULL,
    confirmed_at timestamptz NOT NULL,
    expires_at   timestamptz,
    took_us      bigint      NOT NULL,
    buried       text        NOT NULL DEFAULT '',
    CHECK (length(fingerprint) = 32 AND length(static_key) = 32)
);
CREATE INDEX entry_live ON entry (static_key, confirmed_at DESC) WHERE buried = '';
CREATE INDEX entry_of_step ON entry (static_key, step, recorded_at DESC);
CREATE INDEX entry_of_template ON entry (project, template, step, recorded_at DESC);
CREATE INDEX entry_of_run ON entry (project, run);

-- Entries that were taken out of use or replaced, and why.
CREATE TABLE tombstone (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint bytea       NOT NULL,
    project     text        NOT NULL,
    run         text        NOT NULL,
    step        text        NOT NULL,
    reason      text        NOT NULL,
    buried_at   timestamptz NOT NULL
);
CREATE INDEX tombstone_of_entry ON tombstone (fingerprint, buried_at DESC);

-- Every step of every run as it was seen to end: what it would have been found by. Also the inbox: a step is
-- recorded once.
CREATE TABLE attempt (
    project     text        NOT NULL,
    run         text        NOT NULL,
    step        text        NOT NULL,
    template    text        NOT NULL,
    phase       text        NOT NULL,
    verdict     text        NOT NULL,
    mode        text        NOT NULL,
    fingerprint bytea,
    static_key  bytea,
    inputs      bytea,
    reason      text        NOT NULL,
    unkept      text        NOT NULL,
    producer_run    text        NOT NULL,
    producer_step   text        NOT NULL,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (project, run, step)
);
CREATE INDEX attempt_of_key ON attempt (fingerprint, finished_at DESC);

-- Steps that were not run.
CREATE TABLE hit (
    project     text        NOT NULL,
    run         text        NOT NULL,
    step        text        NOT NULL,
    fingerprint bytea       NOT NULL,
    saved_us    bigint      NOT NULL,
    hit_at      timestamptz NOT NULL,
    PRIMARY KEY (project, run, step)
);
CREATE INDEX hit_of_entry ON hit (fingerprint);

-- Content digests of objects, by what tells two contents of one place apart.
CREATE TABLE content (
    endpoint text   NOT NULL,
    bucket   text   NOT NULL,
    key      text   NOT NULL,
    etag     text   NOT NULL,
    size     bigint NOT NULL,
    digest   bytea  NOT NULL,
    PRIMARY KEY (key, etag, size, bucket, endpoint)
);
