-- The digest that was last published as what the tag points to now; empty: none.
ALTER TABLE project_image ADD COLUMN moved_to text NOT NULL DEFAULT '';
