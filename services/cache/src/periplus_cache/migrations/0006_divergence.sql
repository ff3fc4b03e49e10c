-- Steps that gave other outputs than the entry of their key. It is resolved once that entry was invalidated or replaced.
CREATE TABLE divergence (
    project       text        NOT NULL,
    run           text        NOT NULL,
    step          text        NOT NULL,
    template      text        NOT NULL,
    fingerprint   bytea       NOT NULL,
    static_key    bytea       NOT NULL,
    producer_run  text        NOT NULL,
    producer_step text        NOT NULL,
    outputs       text[]      NOT NULL,
    detected_at   timestamptz NOT NULL,
    is_resolved   boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (project, run, step)
);
CREATE INDEX divergence_of_entry ON divergence (fingerprint, detected_at DESC);
CREATE INDEX divergence_of_template ON divergence (static_key, detected_at) WHERE NOT is_resolved;
CREATE INDEX divergence_newest ON divergence (project, detected_at DESC);
CREATE INDEX divergence_age ON divergence (detected_at);
