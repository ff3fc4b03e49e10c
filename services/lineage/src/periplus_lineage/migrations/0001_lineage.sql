-- The projection of the events. Each row is the merge of all that the events say about its key (projection.py), so it
-- does not depend on their order or repetition. Texts compare by bytes: the order must not depend on a locale.

CREATE TABLE run (
    project         text COLLATE "C" NOT NULL,
    id              text COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL,  -- submitted_at; until that is known, the time of the run's earliest event
    pipeline        text COLLATE "C" NOT NULL,
    snapshot        text COLLATE "C" NOT NULL,  -- its id; empty if there is none, or RunSubmitted was not received
    started         boolean     NOT NULL,  -- a container of it started
    submitted_at    timestamptz,
    submitted_event bytea,                 -- RunSubmitted, without its steps
    finished_at     timestamptz,
    final_phase     smallint,
    finished_event  bytea,                 -- RunFinished
    phase           smallint    NOT NULL
        GENERATED ALWAYS AS (coalesce(final_phase, CASE WHEN started THEN 2 ELSE 1 END)) STORED,
    PRIMARY KEY (project, id)
);
CREATE INDEX run_newest ON run (project, created_at DESC, id DESC);
CREATE INDEX run_of_pipeline ON run (project, pipeline, created_at DESC, id DESC);
CREATE INDEX run_in_phase ON run (project, phase, created_at DESC, id DESC);
CREATE INDEX run_of_snapshot ON run (project, snapshot) WHERE snapshot <> '';
CREATE INDEX run_by_finish ON run (finished_at);  -- for retention

CREATE TABLE step (
    project         text COLLATE "C" NOT NULL,
    run             text COLLATE "C" NOT NULL,
    path            text COLLATE "C" NOT NULL,
    template        text COLLATE "C" NOT NULL,
    plan_index      integer,               -- its position in the plan
    plan_node       bytea,                 -- StepNode
    started_at      timestamptz,
    finished_at     timestamptz,
    final_phase     smallint,
    saved           interval,
    template_digest bytea,                 -- digest of its template's document; NULL until it ran
    finished_event  bytea,                 -- StepFinished; the document of its template is replaced by its digest
    modified_xid    xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- the transaction that wrote last, for WatchRun
    PRIMARY KEY (project, run, path)
) WITH (fillfactor = 80);

-- The steps without the placeholders that a plan has for steps whose items are known only during the run: steps inside
-- of a fan-out, "a(*).b", and a fan-out "a" as soon as "a(0)" is known.
CREATE VIEW actual_step AS SELECT * FROM step AS s
    WHERE position('(*)' IN s.path) = 0 AND NOT (s.started_at IS NULL AND s.finished_at IS NULL AND EXISTS (
        SELECT FROM step AS i WHERE i.project = s.project AND i.run = s.run
            AND i.path >= s.path || '(' AND i.path < s.path || ')'));

-- A step read or wrote an artifact.
CREATE TABLE artifact_usage (
    project      text COLLATE "C" NOT NULL,
    run          text COLLATE "C" NOT NULL,
    step         text COLLATE "C" NOT NULL,  -- its path
    is_output    boolean NOT NULL,
    name         text COLLATE "C" NOT NULL,
    object_hash  bytea   NOT NULL,           -- of project, endpoint, bucket and key
    object_uri   text COLLATE "C" NOT NULL,
    digest       bytea,                      -- of the content; NULL until it was read
    size_bytes   bigint  NOT NULL,
    cached       boolean NOT NULL,           -- the step was served this output, and did not write it
    modified_xid xid8    NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (project, run, step, is_output, name, object_hash)
);
CREATE INDEX artifact_usage_of_object ON artifact_usage (object_hash, is_output, digest);
CREATE INDEX artifact_usage_of_content ON artifact_usage (digest, is_output) WHERE digest IS NOT NULL;

-- The digest of an object's content if every known one is the same; NULL if none is known or the object was overwritten.
CREATE FUNCTION object_digest(hash bytea) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN d.least = d.greatest THEN d.least END FROM (SELECT
        least(
            (SELECT digest FROM artifact_usage
                WHERE object_hash = hash AND is_output AND digest IS NOT NULL ORDER BY digest LIMIT 1),
            (SELECT digest FROM artifact_usage
                WHERE object_hash = hash AND NOT is_output AND digest IS NOT NULL ORDER BY digest LIMIT 1)
        ) AS least,
        greatest(
            (SELECT digest FROM artifact_usage
                WHERE object_hash = hash AND is_output AND digest IS NOT NULL ORDER BY digest DESC LIMIT 1),
            (SELECT digest FROM artifact_usage
                WHERE object_hash = hash AND NOT is_output AND digest IS NOT NULL ORDER BY digest DESC LIMIT 1)
        ) AS greatest
    ) AS d
$$;

-- A step waited for another or, if `cached`, was served its outputs.
CREATE TABLE step_dependency (
    project       text COLLATE "C" NOT NULL,
    run           text COLLATE "C" NOT NULL,
    step          text COLLATE "C" NOT NULL,
    upstream_run  text COLLATE "C" NOT NULL,
    upstream_step text COLLATE "C" NOT NULL,
    cached        boolean NOT NULL,
    PRIMARY KEY (project, run, step, upstream_run, upstream_step, cached)
);
CREATE INDEX step_dependency_of_upstream ON step_dependency (project, upstream_run, upstream_step);

-- Documents of templates by digest: the steps of many runs share one.
CREATE TABLE template (
    project  text COLLATE "C" NOT NULL,
    digest   bytea NOT NULL,
    document text  NOT NULL,
    used_at  timestamptz NOT NULL DEFAULT now(),  -- when a step with it was stored last, to the hour
    PRIMARY KEY (project, digest)
);
CREATE INDEX template_by_use ON template (used_at);

CREATE TABLE snapshot (
    project     text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    event       bytea NOT NULL,             -- SnapshotTaken
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project, id)
);
CREATE INDEX snapshot_by_age ON snapshot (received_at);
