-- What the events have told so far. Each row is the join of all facts about its key, so that it is the
-- same in whatever order, and however often, they came. Texts compare by bytes: order is ours, not a locale's.

CREATE TABLE run (
    project      text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    at           timestamptz NOT NULL,  -- when it was accepted; until that is told, the first that was seen of it
    pipeline     text COLLATE "C" NOT NULL,
    begun        boolean     NOT NULL,  -- a process of it has started
    submitted_at timestamptz,
    submitted    bytea,                 -- RunSubmitted, without its steps
    finished_at  timestamptz,
    outcome      smallint,
    finished     bytea,                 -- RunFinished
    phase        smallint    NOT NULL GENERATED ALWAYS AS (coalesce(outcome, CASE WHEN begun THEN 2 ELSE 1 END)) STORED,
    PRIMARY KEY (project, id)
);
CREATE INDEX run_newest ON run (project, at DESC, id DESC);
CREATE INDEX run_of_pipeline ON run (project, pipeline, at DESC, id DESC);
CREATE INDEX run_in_phase ON run (project, phase, at DESC, id DESC);

CREATE TABLE step (
    project     text COLLATE "C" NOT NULL,
    run         text COLLATE "C" NOT NULL,
    path        text COLLATE "C" NOT NULL,
    template    text COLLATE "C" NOT NULL,
    ordinal     integer,                -- its place in the plan
    planned     bytea,                  -- StepNode
    started_at  timestamptz,
    finished_at timestamptz,
    phase       smallint,               -- how it ended
    saved       bigint,                 -- microseconds
    finished    bytea,                  -- StepFinished; its template's document is a digest
    touched     xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- who wrote last, for those who follow a run
    PRIMARY KEY (project, run, path)
) WITH (fillfactor = 80);

-- The steps without those that stand for others, which a plan holds while their items are not known: the insides of
-- a loop, "a(*).b", and a fan-out "a" once "a(0)" was seen.
CREATE VIEW real_step AS SELECT * FROM step AS s
    WHERE position('(*)' IN s.path) = 0 AND NOT (s.started_at IS NULL AND s.finished_at IS NULL AND EXISTS (
        SELECT FROM step AS i WHERE i.project = s.project AND i.run = s.run
            AND i.path >= s.path || '(' AND i.path < s.path || ')'));

-- A step was given, or gave, an artifact.
CREATE TABLE flow (
    project text COLLATE "C" NOT NULL,
    run     text COLLATE "C" NOT NULL,
    path    text COLLATE "C" NOT NULL,
    made    boolean NOT NULL,           -- given by the step, else given to it
    name    text COLLATE "C" NOT NULL,
    place   bytea   NOT NULL,           -- hash of project, endpoint, bucket and key
    object  text COLLATE "C" NOT NULL,  -- the place, as node ids write it
    digest  bytea,                      -- of the contents; NULL until told
    size    bigint  NOT NULL,
    cached  boolean NOT NULL,           -- the step did not run: another one made it
    touched xid8    NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (project, run, path, made, name, place)
);
CREATE INDEX flow_at ON flow (place, made, digest);
CREATE INDEX flow_of ON flow (digest, made) WHERE digest IS NOT NULL;

-- What lies at a place, if the same was always found there; NULL if nobody told, or if it was overwritten.
CREATE FUNCTION contents(at bytea) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN d.least = d.greatest THEN d.least END FROM (SELECT
        least(
            (SELECT digest FROM flow WHERE place = at AND made AND digest IS NOT NULL ORDER BY digest LIMIT 1),
            (SELECT digest FROM flow WHERE place = at AND NOT made AND digest IS NOT NULL ORDER BY digest LIMIT 1)
        ) AS least,
        greatest(
            (SELECT digest FROM flow WHERE place = at AND made AND digest IS NOT NULL ORDER BY digest DESC LIMIT 1),
            (SELECT digest FROM flow WHERE place = at AND NOT made AND digest IS NOT NULL ORDER BY digest DESC LIMIT 1)
        ) AS greatest
    ) AS d
$$;

-- A step waited for another one, or has its outputs from it.
CREATE TABLE link (
    project   text COLLATE "C" NOT NULL,
    run       text COLLATE "C" NOT NULL,
    path      text COLLATE "C" NOT NULL,
    from_run  text COLLATE "C" NOT NULL,
    from_path text COLLATE "C" NOT NULL,
    cached    boolean NOT NULL,
    PRIMARY KEY (project, run, path, from_run, from_path, cached)
);
CREATE INDEX link_down ON link (project, from_run, from_path);

-- What steps did, by digest: many steps of many runs share one.
CREATE TABLE template (
    project  text COLLATE "C" NOT NULL,
    digest   bytea NOT NULL,
    document text  NOT NULL,
    PRIMARY KEY (project, digest)
);

CREATE TABLE snapshot (
    project text COLLATE "C" NOT NULL,
    id      text COLLATE "C" NOT NULL,
    body    bytea NOT NULL,             -- SnapshotTaken
    PRIMARY KEY (project, id)
);
