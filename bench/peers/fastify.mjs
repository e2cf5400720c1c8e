// SPDX-License-Identifier: Apache-2.0
// Fastify + postgres.js on oncehook's tables: one statement a request, a transaction of its own. postgres.js
// prepares it once a connection and sends the next before the answer to the last has come.
import { randomUUID } from 'node:crypto';
import { number } from './common.mjs';
import { connect, serve } from './fastify_common.mjs';

const sql = connect(number('PEER_POOL', 20));

// One enrollment and its one instance: `e` locks the one, `i` the other, always in this order, so no two
// requests wait for each other. The report's own order (instance first) has no room in one statement here.
async function capture({ id, type, at, enrollment, text }) {
  const [row] = await sql`
    WITH e AS MATERIALIZED (
      SELECT id, instance_id FROM campaign_enrollments WHERE id = ${enrollment}::uuid FOR NO KEY UPDATE),
    k AS (
      INSERT INTO event_keys (provider_event_id, key_scope)
      SELECT ${id}::text, 'source:bench' WHERE (SELECT count(*) FROM e) >= 0
      ON CONFLICT DO NOTHING RETURNING provider_event_id),
    v AS (
      INSERT INTO campaign_events ("timestamp", delivery_id, instance_id, enrollment_id, source, provider,
                                   provider_event_id, key_scope, event_type, provider_event_type, payload)
      SELECT ${at}::text::timestamptz, ${randomUUID()}::uuid, (SELECT instance_id FROM e), ${enrollment}::uuid,
             'bench', 'hmac', k.provider_event_id, 'source:bench', ${type}::text, ${type}::text, ${text}::text::jsonb
        FROM k),
    n AS (
      UPDATE campaign_enrollments c
         SET total_events = c.total_events + 1,
             last_event_at = greatest(c.last_event_at, least(${at}::text::timestamptz, now()))
        FROM k, e WHERE c.id = e.id),
    i AS (
      UPDATE campaign_instances c
         SET total_sent = total_sent + (${type}::text = 'sent')::integer,
             total_delivered = total_delivered + (${type}::text = 'delivered')::integer,
             total_opened = total_opened + (${type}::text = 'opened')::integer,
             total_clicked = total_clicked + (${type}::text = 'clicked')::integer,
             total_replied = total_replied + (${type}::text = 'replied')::integer,
             total_bounced = total_bounced + (${type}::text = 'bounced')::integer,
             total_unsubscribed = total_unsubscribed + (${type}::text = 'unsubscribed')::integer,
             total_completed = total_completed + (${type}::text = 'completed')::integer
        FROM k, e WHERE c.id = e.instance_id)
    SELECT (SELECT count(*)::integer FROM k) AS fresh, (SELECT count(*)::integer FROM e) AS enrolled`;
  if (row.fresh === 0) return 'duplicate';
  return row.enrolled === 0 ? 'orphan' : 'captured';
}

serve(capture);
