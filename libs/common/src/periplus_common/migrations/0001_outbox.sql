-- Events that wait to be published. A row leaves with the transaction that made it, or not at all.
CREATE TABLE outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text  NOT NULL,
    headers jsonb NOT NULL,
    body    bytea NOT NULL
);

-- Wake the relay when the transaction commits. One notice a transaction, however many rows.
CREATE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('outbox_' || TG_TABLE_SCHEMA, '');
    RETURN NULL;
END $$;

CREATE TRIGGER outbox_notify AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();
