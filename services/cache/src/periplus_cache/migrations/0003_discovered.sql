-- Of an entry with discovered inputs: the fingerprint without them, which is known before a step runs. Several entries have it.
ALTER TABLE entry ADD COLUMN base_fingerprint bytea;
CREATE INDEX entry_of_base ON entry (base_fingerprint, confirmed_at DESC) WHERE invalidation_reason = '';
