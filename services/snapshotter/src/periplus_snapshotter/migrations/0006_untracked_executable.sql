-- Git keeps of a file's mode whether its owner may execute it.
ALTER TABLE untracked_file ADD COLUMN executable boolean NOT NULL DEFAULT false;
