-- Events that a transaction published, from its commit until every durable consumer of their stream acknowledged them: a
-- stream that is lost is filled again from here.
CREATE TABLE outbox (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject   text  NOT NULL,
    headers   jsonb NOT NULL,
    body      bytea NOT NULL,
    sequence  bigint,  -- in the stream; NULL while the stream does not have it
    tries     int NOT NULL DEFAULT 0,  -- how often the stream did not store it
    queued_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_unpublished ON outbox (tries, id) WHERE sequence IS NULL;
CREATE INDEX outbox_published ON outbox (sequence) WHERE sequence IS NOT NULL;

-- The stream that the sequences belong to; a stream that replaces a lost one has a later time. One row.
CREATE TABLE outbox_stream (stream_created_at timestamptz NOT NULL);

-- Notify the relay when the transaction commits: once a transaction, however many rows.
CREATE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('outbox_' || TG_TABLE_SCHEMA, '');
    RETURN NULL;
END $$;

CREATE TRIGGER outbox_notify AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();
