"""The report's own schema in PostgreSQL and sessions on it, for the tests of what it proposes."""

import contextlib
import sqlite3
import uuid

import psycopg2
import pytest


@pytest.fixture(scope="module")
def module_database(cluster):
    made = cluster.create_database()
    yield made
    made.drop()


class Session:
    """A connection in a schema of the test's own; a statement that waits for a lock fails with 55P03."""

    def __init__(self, connection, schema):
        self.connection = connection
        self.sql(f"SET search_path = {schema}, public; SET lock_timeout = '150ms'")

    def sql(self, text, *parameters):
        with self.connection.cursor() as cursor:
            cursor.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def value(self, text, *parameters):
        return self.sql(text, *parameters)[0][0]

    def state(self, text, *parameters):
        """The SQLSTATE of a statement that must fail."""
        with pytest.raises(psycopg2.Error) as caught:
            self.sql(text, *parameters)
        return caught.value.pgcode

    def plan(self, text):
        return "\n".join(row[0] for row in self.sql(text))


@pytest.fixture
def sessions(module_database):
    """sessions(n): n connections, autocommit (transactions by BEGIN), in one fresh schema."""
    opened, schema = [], f"s_{uuid.uuid4().hex}"
    module_database.sql(f"CREATE SCHEMA {schema}")

    def make(count=1):
        made = [Session(module_database.connect(), schema) for _ in range(count)]
        opened.extend(made)
        return made
    yield make
    for one in opened:
        one.connection.close()
    module_database.sql(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def one(sessions):
    return sessions()[0]


@pytest.fixture
def lite():
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        yield connection


CAMPAIGNS = """
    CREATE TABLE campaign_templates (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text, is_active boolean
        DEFAULT true, created_at timestamptz DEFAULT now());
    CREATE TABLE email_sequences (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), template_id uuid NOT NULL REFERENCES
        campaign_templates ON DELETE CASCADE, step_number integer, subject text, delay_hours integer DEFAULT 24,
        is_active boolean DEFAULT true);
    CREATE TABLE linkedin_sequences (LIKE email_sequences INCLUDING ALL);
    ALTER TABLE linkedin_sequences ADD COLUMN type text;
    CREATE TABLE campaign_instances (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), template_id uuid REFERENCES
        campaign_templates ON DELETE CASCADE, status text DEFAULT 'active', provider_config jsonb,
        total_enrolled integer NOT NULL DEFAULT 0, total_sent integer NOT NULL DEFAULT 0);
    CREATE TABLE campaign_enrollments (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), instance_id uuid REFERENCES
        campaign_instances ON DELETE CASCADE, contact_id uuid, status text DEFAULT 'active', next_action_at timestamptz,
        UNIQUE (instance_id, contact_id));
    CREATE TABLE campaign_events (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), enrollment_id uuid REFERENCES
        campaign_enrollments ON DELETE CASCADE, provider text, provider_event_id text, event_type text, channel text,
        "timestamp" timestamptz DEFAULT now());
    CREATE UNIQUE INDEX idx_campaign_events_provider_id_unique ON campaign_events (provider_event_id)
        WHERE provider_event_id IS NOT NULL;
    CREATE TABLE workflow_states (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), workflow_name varchar(255) NOT NULL
        DEFAULT 'w', status varchar(50) NOT NULL DEFAULT 'running', context jsonb, completed_at timestamptz);
"""


@pytest.fixture
def theirs(sessions):
    """Two sessions on the report's own schema, as far as it tells it."""
    first, second = sessions(2)
    first.sql(CAMPAIGNS)
    return first, second
