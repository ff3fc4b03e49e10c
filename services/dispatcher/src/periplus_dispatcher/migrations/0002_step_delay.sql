-- What delays each step of an open run, as it was published last. `changes` counts the events.
CREATE TABLE step_delay (
    run     text    NOT NULL REFERENCES run ON DELETE CASCADE,
    step    text    NOT NULL,
    reason  text    NOT NULL,  -- empty if nothing delays it any more
    changes integer NOT NULL DEFAULT 1,
    PRIMARY KEY (run, step)
);
