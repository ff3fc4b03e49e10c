-- What delayed a step last, from StepDelayed. The reason is empty if nothing does any more.
ALTER TABLE step
    ADD COLUMN delay_at     timestamptz,
    ADD COLUMN delay_reason text COLLATE "C";
