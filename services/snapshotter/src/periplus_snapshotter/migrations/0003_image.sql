-- What a layer of an image has: records of packages by path, paths that it removes, folders that it replaces.
CREATE TABLE image_layer (
    digest  text        PRIMARY KEY,
    found   json        NOT NULL,
    read_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX image_layer_by_age ON image_layer (read_at);

-- The packages of an image, by the digest of its manifest for one platform.
CREATE TABLE image (
    digest  text        PRIMARY KEY,
    set_id  bigint      NOT NULL REFERENCES package_set,
    read_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX image_by_set ON image (set_id);
CREATE INDEX image_by_age ON image (read_at);

-- The digests that the images of a project had when they were resolved.
CREATE TABLE project_image (
    project     text        NOT NULL,
    name        text        NOT NULL,
    digest      text        NOT NULL,                -- of what the tag pointed to
    manifest    text        NOT NULL,                -- of the platform; empty if it has none
    resolved_at timestamptz NOT NULL DEFAULT now(),  -- last, to the hour while nothing changes
    PRIMARY KEY (project, name, digest)
);
CREATE INDEX project_image_by_manifest ON project_image (manifest);
CREATE INDEX project_image_by_age ON project_image (resolved_at);
