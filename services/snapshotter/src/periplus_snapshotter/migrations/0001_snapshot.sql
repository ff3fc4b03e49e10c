-- A list of packages, stored once for all snapshots and lockfiles that have it.
CREATE TABLE package_set (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest     text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX package_set_by_age ON package_set (created_at);

CREATE TABLE package (
    set_id  bigint NOT NULL REFERENCES package_set ON DELETE CASCADE,
    name    text   NOT NULL,
    version text   NOT NULL,
    hashes  text[] NOT NULL,
    PRIMARY KEY (set_id, name, version)
);

-- To find the runs that used a package.
CREATE INDEX package_by_name ON package (name, version);

-- The packages that a lockfile pins, by its format and content: it is parsed once.
CREATE TABLE lockfile (
    name       text   NOT NULL,
    digest     text   NOT NULL,
    set_id     bigint NOT NULL REFERENCES package_set,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, digest)
);
CREATE INDEX lockfile_by_set ON lockfile (set_id);
CREATE INDEX lockfile_by_age ON lockfile (created_at);

-- Objects in the artifact repository, as they were when they were written.
CREATE TABLE stored_object (
    key        text   PRIMARY KEY,
    digest     text   NOT NULL,
    size_bytes bigint NOT NULL,
    etag       text   NOT NULL,                -- empty: about to be deleted, and perhaps deleted already
    used_at    timestamptz NOT NULL DEFAULT now()  -- when a claim had it last, to the hour
);
CREATE INDEX stored_object_by_use ON stored_object (used_at);

CREATE TABLE snapshot (
    project               text        NOT NULL,
    id                    text        NOT NULL,
    environment           text        NOT NULL,
    git_commit            text,
    git_branch            text        NOT NULL,
    git_remote            text        NOT NULL,
    patch_digest          text,
    patch_bytes           bigint      NOT NULL,
    lockfile_name         text,
    lockfile_digest       text,
    lockfile_bytes        bigint      NOT NULL,
    code_digest           text,
    code_bytes            bigint      NOT NULL,
    code_key              text        NOT NULL,
    python_version        text        NOT NULL,
    python_implementation text        NOT NULL,
    system                text        NOT NULL,
    machine               text        NOT NULL,
    installed_set         bigint      NOT NULL REFERENCES package_set,
    locked_set            bigint      NOT NULL REFERENCES package_set,
    warnings              text[]      NOT NULL,
    taken_at              timestamptz NOT NULL,
    last_taken_at         timestamptz NOT NULL DEFAULT now(),  -- to the hour
    PRIMARY KEY (project, id)
);
CREATE INDEX snapshot_by_age ON snapshot (last_taken_at);
-- From an object to the snapshots that have it.
CREATE INDEX snapshot_by_patch ON snapshot (patch_digest);
CREATE INDEX snapshot_by_lockfile ON snapshot (lockfile_digest);
CREATE INDEX snapshot_by_code ON snapshot (code_key);

-- From a list of packages to the snapshots that have it.
CREATE INDEX snapshot_by_installed ON snapshot (installed_set);
CREATE INDEX snapshot_by_locked ON snapshot (locked_set);

-- Paths are bytes, as file names need not be UTF-8.
CREATE TABLE untracked_file (
    project    text   NOT NULL,
    snapshot   text   NOT NULL,
    path       bytea  NOT NULL,
    digest     text   NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (project, snapshot, path),
    FOREIGN KEY (project, snapshot) REFERENCES snapshot (project, id) ON DELETE CASCADE
);
CREATE INDEX untracked_file_by_digest ON untracked_file (digest);
