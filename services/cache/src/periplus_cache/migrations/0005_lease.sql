-- Who makes a step now, or is about to. A lease has a row for each fingerprint under which others look for it. It has ended when
-- its row is gone, or may be taken over when it has expired; its token is current for as long as a row has it. Times are this server's.
CREATE SEQUENCE lease_token;
CREATE TABLE lease (
    project     text        NOT NULL,
    fingerprint bytea       NOT NULL,
    token       bigint      NOT NULL,
    run         text        NOT NULL,
    step        text        NOT NULL,
    is_started  boolean     NOT NULL,
    acquired_at timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (project, fingerprint)
);
CREATE INDEX lease_of_token ON lease (token);
CREATE INDEX lease_of_run ON lease (project, run);
CREATE INDEX lease_expiry ON lease (expires_at);

-- Steps that are ready and wait for the lease of a fingerprint to end.
CREATE TABLE lease_wait (
    project     text        NOT NULL,
    run         text        NOT NULL,
    step        text        NOT NULL,
    fingerprint bytea       NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (project, run, step)
);
CREATE INDEX lease_wait_of_fingerprint ON lease_wait (project, fingerprint, since);
CREATE INDEX lease_wait_expiry ON lease_wait (expires_at);
