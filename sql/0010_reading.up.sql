-- Reading: contacts, and the indexes that keep a page's cost apart from its number.

-- The columns are the seed's. `id` is what campaign_enrollments.contact_id may name, and what makes a
-- cursor unique: an import is one transaction, so its contacts share one imported_at.
CREATE TABLE imported_contacts (
    email          text        PRIMARY KEY,
    id             uuid        NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    first_name     text,
    last_name      text,
    title          text,
    company        text,
    company_domain text,
    phone          text,
    linkedin_url   text,
    source         text        NOT NULL DEFAULT '',
    data           jsonb       NOT NULL DEFAULT '{}',
    imported_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_imported_contacts_company_domain ON imported_contacts (company_domain);
CREATE INDEX idx_imported_date ON imported_contacts (imported_at, id);
CREATE INDEX idx_imported_source ON imported_contacts (source, imported_at, id);

REVOKE ALL ON imported_contacts FROM PUBLIC;
GRANT SELECT ON imported_contacts TO oncehook_gateway;

-- step: concurrently
CREATE INDEX CONCURRENTLY idx_campaign_templates_created ON campaign_templates (created_at, id);

-- step: concurrently, on every month
-- The feed's order: by transaction, and within it by id. Not by time: now() is when a transaction
-- began, and one that began earlier may commit later.
CREATE INDEX CONCURRENTLY idx_campaign_events_tx ON campaign_events (tx, id);
