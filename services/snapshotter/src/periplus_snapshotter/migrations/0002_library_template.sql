-- The WorkflowTemplates and ClusterWorkflowTemplates that a snapshot's workflow refers to.
CREATE TABLE library_template (
    project    text   NOT NULL,
    snapshot   text   NOT NULL,
    name       text   NOT NULL,  -- kind and name: WorkflowTemplate/train
    digest     text   NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (project, snapshot, name),
    FOREIGN KEY (project, snapshot) REFERENCES snapshot (project, id) ON DELETE CASCADE
);
CREATE INDEX library_template_by_digest ON library_template (digest);
