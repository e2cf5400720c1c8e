// SPDX-License-Identifier: Apache-2.0
// Fastify + postgres.js on oncehook's tables, batches made by hand: events of many requests are gathered, up
// to BATCH of them or WAIT_MS after the first, and go into one statement; each request is answered when that
// has committed. What a good Node programmer would write who knows what a commit costs.
import { randomUUID } from 'node:crypto';
import { number } from './common.mjs';
import { connect, serve } from './fastify_common.mjs';

const BATCH = number('PEER_BATCH', 500);
const WAIT_MS = number('PEER_WAIT_MS', 2);
const FLYING = number('PEER_FLYING', 2);
const sql = connect(FLYING);

// The locks are taken in oncehook's own order, instances, enrollments, keys, each sorted: a part that begins
// with a count of the one before it cannot run earlier, so two workers never deadlock.
function write(events) {
  const column = (name) => events.map((event) => event[name]);
  return sql`
    WITH x AS MATERIALIZED (
      SELECT * FROM unnest(${column('id')}::text[], ${column('type')}::text[], ${column('at')}::text[],
                           ${column('enrollment')}::text[], ${events.map(() => randomUUID())}::text[],
                           ${column('text')}::text[]) AS x (id, type, at, enrollment, delivery, payload)),
    i AS MATERIALIZED (
      SELECT c.id FROM campaign_instances c
       WHERE c.id IN (SELECT n.instance_id FROM campaign_enrollments n
                       WHERE n.id = ANY (${column('enrollment')}::text[]::uuid[]))
       ORDER BY c.id FOR NO KEY UPDATE),
    e AS MATERIALIZED (
      SELECT c.id, c.instance_id FROM campaign_enrollments c
       WHERE c.id = ANY (${column('enrollment')}::text[]::uuid[]) AND (SELECT count(*) FROM i) >= 0
       ORDER BY c.id FOR NO KEY UPDATE),
    k AS (
      INSERT INTO event_keys (provider_event_id, key_scope)
      SELECT x.id, 'source:bench' FROM x WHERE (SELECT count(*) FROM e) >= 0
       ORDER BY x.id COLLATE "C"
      ON CONFLICT DO NOTHING RETURNING provider_event_id),
    f AS MATERIALIZED (
      SELECT x.*, x.at::timestamptz AS happened, e.id AS bound_to, e.instance_id
        FROM k JOIN x ON x.id = k.provider_event_id LEFT JOIN e ON e.id = x.enrollment::uuid),
    v AS (
      INSERT INTO campaign_events ("timestamp", delivery_id, instance_id, enrollment_id, source, provider,
                                   provider_event_id, key_scope, event_type, provider_event_type, payload)
      SELECT happened, delivery::uuid, instance_id, enrollment::uuid, 'bench', 'hmac', id, 'source:bench', type, type,
             payload::jsonb
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
    SELECT id, bound_to IS NULL AS orphan FROM f`;
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
    (rows) => {
      const fresh = new Map(rows.map((row) => [row.id, row.orphan ? 'orphan' : 'captured']));
      for (const [id, entry] of batch) entry.decide.forEach((decide, n) => decide(n === 0 ? fresh.get(id) ?? 'duplicate' : 'duplicate'));
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
