-- An event stays until all who consume its stream have handled it: a stream that is lost is filled again from here.
ALTER TABLE outbox
    ADD COLUMN sequence bigint,  -- where the stream has it; NULL while the stream has it not
    ADD COLUMN tries int NOT NULL DEFAULT 0,  -- how often the stream did not take it
    ADD COLUMN queued_at timestamptz NOT NULL DEFAULT now();

CREATE INDEX outbox_waiting ON outbox (tries, id) WHERE sequence IS NULL;
CREATE INDEX outbox_kept ON outbox (sequence) WHERE sequence IS NOT NULL;

-- The stream that the sequences belong to: one that is made anew has another time of birth. One row.
CREATE TABLE outbox_stream (created timestamptz NOT NULL);
