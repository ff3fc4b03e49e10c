-- Digests are stored as their 32 bytes. Inputs, outputs and documents are JSON texts in bytea: they may contain
-- U+0000, which jsonb refuses.

-- The document of each static key. `used_at`: the last day on which a step with this static key was recorded.
CREATE TABLE template (
    static_key bytea       PRIMARY KEY,
    project    text        NOT NULL,
    epoch      int         NOT NULL,
    document   bytea       NOT NULL,
    used_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX template_used ON template (used_at);

-- Results that can be served. The fingerprint covers the project. `last_used_at`: the last day on which it was
-- recorded, confirmed or hit.
CREATE TABLE entry (
    fingerprint         bytea       PRIMARY KEY,
    project             text        NOT NULL,
    static_key          bytea       NOT NULL,
    template            text        NOT NULL,
    producer_run        text        NOT NULL,
    producer_step       text        NOT NULL,
    inputs              bytea       NOT NULL,
    outputs             bytea       NOT NULL,
    recorded_at         timestamptz NOT NULL,
    confirmed_at        timestamptz NOT NULL,
    expires_at          timestamptz,
    last_used_at        timestamptz NOT NULL,
    duration            interval    NOT NULL,
    invalidation_reason text        NOT NULL DEFAULT '',
    CHECK (length(fingerprint) = 32 AND length(static_key) = 32)
);
CREATE INDEX entry_live ON entry (static_key, confirmed_at DESC) WHERE invalidation_reason = '';
CREATE INDEX entry_of_step ON entry (static_key, producer_step, recorded_at DESC);
CREATE INDEX entry_of_template ON entry (project, template, producer_step, recorded_at DESC);
CREATE INDEX entry_of_run ON entry (project, producer_run);
CREATE INDEX entry_newest ON entry (project, recorded_at DESC, fingerprint DESC);
CREATE INDEX entry_used ON entry (last_used_at);

-- Entries that were invalidated or replaced, and why.
CREATE TABLE invalidation (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint    bytea       NOT NULL,
    project        text        NOT NULL,
    producer_run   text        NOT NULL,
    producer_step  text        NOT NULL,
    reason         text        NOT NULL,
    invalidated_at timestamptz NOT NULL
);
CREATE INDEX invalidation_of_entry ON invalidation (fingerprint, invalidated_at DESC);
CREATE INDEX invalidation_age ON invalidation (invalidated_at);

-- Every finished step of every run, with the key that it had or would have had. A StepFinished event that is delivered
-- again finds its row here and changes nothing.
CREATE TABLE attempt (
    project             text        NOT NULL,
    run                 text        NOT NULL,
    step                text        NOT NULL,
    template            text        NOT NULL,
    phase               text        NOT NULL,
    verdict             text        NOT NULL,
    cache_mode          text        NOT NULL,
    fingerprint         bytea,
    static_key          bytea,
    inputs              bytea,
    uncacheable_reason  text        NOT NULL,
    not_recorded_reason text        NOT NULL,
    producer_run        text        NOT NULL,
    producer_step       text        NOT NULL,
    finished_at         timestamptz NOT NULL,
    PRIMARY KEY (project, run, step)
);
CREATE INDEX attempt_of_fingerprint ON attempt (fingerprint, finished_at DESC);
CREATE INDEX attempt_age ON attempt (finished_at);

-- Steps that were served an entry, and the run time of its producer.
CREATE TABLE hit (
    project     text        NOT NULL,
    run         text        NOT NULL,
    step        text        NOT NULL,
    fingerprint bytea       NOT NULL,
    saved       interval    NOT NULL,
    hit_at      timestamptz NOT NULL,
    PRIMARY KEY (project, run, step)
);
CREATE INDEX hit_of_entry ON hit (fingerprint);
CREATE INDEX hit_age ON hit (hit_at);

-- Content digests of objects that were read, by the ETag and size that tell two contents of one object apart.
CREATE TABLE content (
    endpoint   text        NOT NULL,
    bucket     text        NOT NULL,
    key        text        NOT NULL,
    etag       text        NOT NULL,
    size_bytes bigint      NOT NULL,
    digest     bytea       NOT NULL,
    read_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, etag, size_bytes, bucket, endpoint)
);
CREATE INDEX content_age ON content (read_at);
