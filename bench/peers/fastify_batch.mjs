// SPDX-License-Identifier: Apache-2.0
// Fastify + postgres.js on oncehook's tables, batches made by hand: events of many requests are gathered, up
// to BATCH of them or WAIT_MS after the first, and go into one statement; each request is answered when that
// has committed. What a good Node programmer would write who knows what a commit costs.
import { number } from './common.mjs';
import { connect, serve } from './fastify_common.mjs';

const BATCH = number('PEER_BATCH', 1000);
const WAIT_MS = number('PEER_WAIT_MS', 15);
const FLYING = number('PEER_FLYING', 1);
const sql = connect(FLYING);

// The events go as one JSON array, put together from the bodies as they came: of the ways tried (arrays and
// unnest, one parameter a column) this costs Node least. The locks are taken in oncehook's own order,
// instances, enrollments, keys, each sorted: a part that asks for a count of the one before it cannot run
// earlier, so two workers never deadlock.
function write(events) {
  return sql`
    WITH x AS MATERIALIZED (
      SELECT j->>'id' AS id, j->>'type' AS type, (j->>'occurred_at')::timestamptz AS happened,
             (j->>'enrollment_id')::uuid AS enrollment, j AS payload
        FROM jsonb_array_elements(${`[${events.map((event) => event.text).join(',')}]`}::text::jsonb) j),
    i AS MATERIALIZED (
      SELECT c.id FROM campaign_instances c
       WHERE c.id IN (SELECT n.instance_id FROM campaign_enrollments n JOIN x ON n.id = x.enrollment)
       ORDER BY c.id FOR NO KEY UPDATE),
    e AS MATERIALIZED (
      SELECT c.id, c.instance_id FROM campaign_enrollments c
       WHERE c.id IN (SELECT enrollment FROM x) AND (SELECT count(*) FROM i) >= 0
       ORDER BY c.id FOR NO KEY UPDATE),
    k AS (
      INSERT INTO event_keys (provider_event_id, key_scope)
      SELECT x.id, 'source:bench' FROM x WHERE (SELECT count(*) FROM e) >= 0
       ORDER BY x.id COLLATE "C"
      ON CONFLICT DO NOTHING RETURNING provider_event_id),
    f AS MATERIALIZED (
      SELECT x.*, e.id AS bound_to, e.instance_id
        FROM k JOIN x ON x.id = k.provider_event_id LEFT JOIN e ON e.id = x.enrollment),
    v AS (
      INSERT INTO campaign_events ("timestamp", delivery_id, instance_id, enrollment_id, source, provider,
                                   provider_event_id, key_scope, event_type, provider_event_type, payload)
      SELECT happened, gen_random_uuid(), instance_id, enrollment, 'bench', 'hmac', id, 'source:bench', type, type,
             payload
        FROM f),
    n AS (
      UPDATE campaign_enrollments c
         SET total_events = c.total_events + d.events,
             last_event_at = greatest(c.last_event_at, d.last_event_at)
        FROM (SELECT bound_to, count(*) AS events, max(least(happened, now())) AS last_event_at
                FROM f WHERE bound_to IS NOT NULL GROUP BY 1) d
       WHERE c.id = d.bound_to),
    t AS (
      UPDATE campaign_instances c
         SET total_sent = total_sent + d.sent, total_delivered = total_delivered + d.delivered,
             total_opened = total_opened + d.opened, total_clicked = total_clicked + d.clicked,
             total_replied = total_replied + d.replied, total_bounced = total_bounced + d.bounced,
             total_unsubscribed = total_unsubscribed + d.unsubscribed,
             total_completed = total_completed + d.completed
        FROM (SELECT instance_id, count(*) FILTER (WHERE type = 'sent') AS sent,
                     count(*) FILTER (WHERE type = 'delivered') AS delivered,
                     count(*) FILTER (WHERE type = 'opened') AS opened,
                     count(*) FILTER (WHERE type = 'clicked') AS clicked,
                     count(*) FILTER (WHERE type = 'replied') AS replied,
                     count(*) FILTER (WHERE type = 'bounced') AS bounced,
                     count(*) FILTER (WHERE type = 'unsubscribed') AS unsubscribed,
                     count(*) FILTER (WHERE type = 'completed') AS completed
                FROM f WHERE instance_id IS NOT NULL GROUP BY 1) d
       WHERE c.id = d.instance_id)
    SELECT ARRAY(SELECT x.id FROM x WHERE x.id NOT IN (SELECT provider_event_id FROM k)) AS duplicates,
           ARRAY(SELECT id FROM f WHERE bound_to IS NULL) AS orphans`;
}

// ---- gathering

let waiting = new Map(); // by id: the event and those who wait for it
let timer = null;
let flying = 0;

function flush() {
  if (timer) clearTimeout(timer);
  timer = null;
  if (flying >= FLYING || waiting.size === 0) return;
  const batch = waiting;
  waiting = new Map();
  flying++;
  write([...batch.values()].map((entry) => entry.event)).then(
    ([{ duplicates, orphans }]) => {
      const known = new Set(duplicates);
      const unbound = new Set(orphans);
      for (const [id, { decide }] of batch) {
        decide.forEach((tell, place) => {
          if (place > 0 || known.has(id)) tell('duplicate');
          else tell(unbound.has(id) ? 'orphan' : 'captured');
        });
      }
    },
    (error) => {
      console.error(error);
      for (const entry of batch.values()) for (const fail of entry.fail) fail(error);
    },
  ).finally(() => {
    flying--;
    flush(); // what came meanwhile has waited long enough
  });
}

function capture(event) {
  return new Promise((decide, fail) => {
    const entry = waiting.get(event.id); // the same delivery twice in one batch: the second is a duplicate
    if (entry) {
      entry.decide.push(decide);
      entry.fail.push(fail);
      return;
    }
    waiting.set(event.id, { event, decide: [decide], fail: [fail] });
    if (waiting.size >= BATCH) flush();
    else timer ??= setTimeout(flush, WAIT_MS);
  });
}

serve(capture);
