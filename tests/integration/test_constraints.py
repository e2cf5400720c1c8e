"""What the schema refuses, and what no key enforces and `oncehook audit` finds."""

import json

import psycopg2
import pytest

from support.capture import capture, event
from support.gateway import oncehook

SECRET = "sk_live_4eC39HqLyjWDarjtT1"


def put(database, config):
    template = database.value("INSERT INTO campaign_templates DEFAULT VALUES RETURNING id::text")
    return database.value("INSERT INTO campaign_instances (template_id, provider_config) VALUES (%s, %s) RETURNING id::text",
                          template, json.dumps(config))


# ---- provider_config ------------------------------------------------------------------------

@pytest.mark.parametrize("config, place", [
    ({"email_provider": "lemlist", "api_keys": {"lemlist": SECRET, "phantombuster": "x"}}, '"api_keys"."lemlist"'),
    ({"apiKey": "x"}, '"apiKey"'), ({"lemlist-api-key": "x"}, '"lemlist-api-key"'), ({"SMTP_PASSWORD": "x"}, '"SMTP_PASSWORD"'),
    ({"a": [{"b": {"client_secret": "x"}}]}, '"a".0."b"."client_secret"'), ({"tokens": ["x"]}, '"tokens".0'),
    ({"auth_token_v2": "x"}, '"auth_token_v2"'), ({"pwd": 1234}, '"pwd"'), ({"secret": {"deep": {"er": "x"}}}, '"secret"."deep"."er"'),
    ({"note": SECRET}, '"note"'), ({"proxy": "https://me:word@proxy.example.com"}, '"proxy"'),
    ({"pem": "-----BEGIN RSA PRIVATE KEY-----\n…"}, '"pem"'), ({"headers": {"Authorization": "Basic eDp5"}}, '"headers"."Authorization"'),
    ({"token": {"$ref": "env:X", "value": "x"}}, '"token"."$ref"'), ({"token": {"$ref": SECRET}}, '"token"."$ref"'),
    ({"token": {"$ref": "env:"}}, '"token"."$ref"'), ([{"password": "x"}], '0."password"'), ("whsec_MfKQ9r8", "the root")])
def test_a_secret_in_clear_is_refused_by_its_place_and_never_by_its_value(database, config, place):
    with pytest.raises(psycopg2.errors.CheckViolation) as caught:
        put(database, config)
    said = caught.value.diag
    assert said.message_primary == f"provider_config holds a secret in clear at {place}"
    assert said.constraint_name == "campaign_instances_provider_config_secrets" and "$ref" in said.message_hint
    for part in (said.message_primary, said.message_detail, said.message_hint):
        assert "sk_live" not in (part or "") and "word@" not in (part or "")


@pytest.mark.parametrize("config", [
    {}, {"email_provider": "lemlist", "settings": {"daily_limit": 50, "timezone": "America/New_York"}},
    {"api_keys": {"lemlist": {"$ref": "env:LEMLIST_KEY"}, "other": {"$ref": "secret:vault/other"}}},
    {"password": ""}, {"password": None}, {"use_token": True, "token_url": "https://example.com/t"}, {"tokens_per_day": 5},
    {"key": "name"}, {"secret": {}}, {"url": "https://example.com/a:b@c"}, []])
def test_what_is_no_secret_is_taken(database, config):
    put(database, config)


def test_counting_does_not_ask_and_older_rows_stay_as_they_are_until_they_are_written(database):
    """A CHECK … NOT VALID would refuse the next event of such an instance, and repeat its row in the message."""
    (instance, (enrollment,)), = database.seed()
    database.sql("ALTER TABLE campaign_instances DISABLE TRIGGER campaign_instances_provider_config_secrets")
    database.sql("UPDATE campaign_instances SET provider_config = %s", json.dumps({"api_key": SECRET}))
    database.sql("ALTER TABLE campaign_instances ENABLE TRIGGER campaign_instances_provider_config_secrets")
    assert capture(database.gateway_url, event(enrollment=enrollment, type="sent")) == "c"
    assert database.sql("SELECT id::text, oncehook_clear_secret(provider_config) FROM campaign_instances "
                        "WHERE oncehook_clear_secret(provider_config) IS NOT NULL") == [(instance, '"api_key"')]
    with pytest.raises(psycopg2.errors.CheckViolation):
        database.sql("UPDATE campaign_instances SET provider_config = provider_config || '{\"x\": 1}'")
    database.sql("UPDATE campaign_instances SET provider_config = '{\"api_key\": {\"$ref\": \"env:KEY\"}}'")


def test_the_check_that_was_not_taken_fails_on_an_update_of_a_counter(database):
    (instance, _), = database.seed()
    database.sql("ALTER TABLE campaign_instances DISABLE TRIGGER campaign_instances_provider_config_secrets")
    database.sql("UPDATE campaign_instances SET provider_config = %s", json.dumps({"api_key": SECRET}))
    database.sql("ALTER TABLE campaign_instances ADD CHECK (NOT provider_config ? 'api_key') NOT VALID")
    with pytest.raises(psycopg2.errors.CheckViolation) as caught:
        database.sql("UPDATE campaign_instances SET total_sent = total_sent + 1 WHERE id = %s", instance)
    assert SECRET in caught.value.diag.message_detail


# ---- what no key enforces -------------------------------------------------------------------

def findings(database, *arguments):
    done = oncehook("audit", "--database", database.gateway_url, *arguments, check=False)
    found = json.loads(oncehook("audit", "--json", "--database", database.gateway_url, *arguments, check=False).stdout)
    lines = done.stdout.splitlines()[:-1]
    assert len(lines) == found["drifts"] and done.returncode == (1 if lines else 0)
    return lines, found["drift"]


def test_audit_finds_an_event_in_another_instance_than_its_enrollments(database):
    (one, (enrollment,)), (two, _) = database.seed(2, 1)
    capture(database.gateway_url, event(enrollment=enrollment, type="other"))
    assert findings(database) == ([], [])
    (number,), = database.sql("UPDATE campaign_events SET instance_id = %s RETURNING id", two)
    lines, (found,) = findings(database)
    assert lines == [f"campaign_events {number} instance_id counter={one} events={two}"]
    assert (found["counter"], found["events"]) == (one, two)


def test_audit_finds_a_key_whose_event_is_nowhere_and_none_of_a_month_that_is_gone(database):
    names = ['a "quoted" one', "back\\slash", "line\nbreak"]
    capture(database.gateway_url, *[event(id=name) for name in names], event())
    database.sql("INSERT INTO event_keys VALUES ('of a retired month', 'source:test', now() - interval '2 years')")
    assert findings(database) == ([], [])
    database.sql("DELETE FROM campaign_events WHERE provider_event_id = ANY (%s)", names)
    lines, found = findings(database)
    assert len(lines) == 3 and all(len(line.split()) == 5 and line.endswith("counter=1 events=0") for line in lines)
    assert {one["id"] for one in found} == {f"source:test/{name}" for name in names}
    (instance, _), = database.seed(1, 0)
    assert findings(database, "--instance", instance) == ([], []), "a key belongs to no instance"


def test_rows_that_were_deleted_leave_events_and_no_finding(database):
    (instance, (enrollment,)), = database.seed()
    capture(database.gateway_url, event(enrollment=enrollment), event(instance=instance))
    database.sql("SELECT oncehook_delete_instance(%s)", instance)
    assert findings(database) == ([], [])
