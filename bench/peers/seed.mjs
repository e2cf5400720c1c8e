// SPDX-License-Identifier: Apache-2.0
// The seed's own way, Express + Sequelize on the report's own tables: its pool and retries (3.1), its webhook
// deduplication, find and then create (7.2), its increments row by row (3.2). The report's endpoint has event
// and counter in no one transaction, and its counters drift; here they are in one, or it could not be compared.
import express from 'express';
import { randomUUID } from 'node:crypto';
import { DataTypes, Sequelize, UniqueConstraintError } from 'sequelize';
import { answer, COUNTED, eventOf, isSigned, number, run, settings } from './common.mjs';

const sequelize = new Sequelize({
  dialect: 'postgres', host: settings.socket, username: settings.user, database: settings.database,
  logging: false,
  pool: { max: number('PEER_POOL', 20), min: 2, acquire: 30000, idle: 10000, evict: 1000 },
  dialectOptions: { statement_timeout: 10000, idle_in_transaction_session_timeout: 30000 },
  retry: { max: 3, match: [/deadlock detected/i, /could not serialize/i, /lock timeout/i] },
});
const uuid = { type: DataTypes.UUID, primaryKey: true };
const table = (name, columns) => sequelize.define(name, columns, { tableName: name, timestamps: false });
const CampaignInstance = table('campaign_instances', {
  id: uuid,
  ...Object.fromEntries(COUNTED.map((type) => [`total_${type}`, DataTypes.INTEGER])),
});
const CampaignEnrollment = table('campaign_enrollments', { id: uuid, instance_id: DataTypes.UUID });
const CampaignEvent = table('campaign_events', {
  id: uuid, enrollment_id: DataTypes.UUID, instance_id: DataTypes.UUID, event_type: DataTypes.STRING,
  channel: DataTypes.STRING, provider: DataTypes.STRING, provider_event_id: DataTypes.STRING,
  timestamp: DataTypes.DATE, metadata: DataTypes.JSONB,
});

CampaignEvent.createIfNotExists = async function createIfNotExists(eventData, options) {
  const existing = await this.findOne({ where: { provider_event_id: eventData.provider_event_id }, ...options });
  if (existing) return { created: false, event: existing };
  return { created: true, event: await this.create(eventData, options) };
};

async function capture({ id, type, at, enrollment, text }) {
  try {
    return await sequelize.transaction(async (transaction) => {
      const found = await CampaignEnrollment.findByPk(enrollment, { transaction });
      const { created } = await CampaignEvent.createIfNotExists({
        id: randomUUID(), enrollment_id: found?.id, instance_id: found?.instance_id, event_type: type, channel: 'email',
        provider: 'hmac', provider_event_id: id, timestamp: at, metadata: JSON.parse(text),
      }, { transaction });
      if (!created) return 'duplicate';
      if (!found) return 'orphan';
      if (COUNTED.includes(type)) {
        await CampaignInstance.increment(`total_${type}`, { by: 1, where: { id: found.instance_id }, transaction });
      }
      return 'captured';
    });
  } catch (error) {
    if (error instanceof UniqueConstraintError) return 'duplicate'; // another request was faster
    throw error;
  }
}

run(async () => {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.post('/in/:source', express.raw({ type: 'application/json', limit: '1mb' }), async (request, response) => {
    if (!isSigned(request.body, request.get('x-signature'))) return response.status(401).end();
    return response.json(answer(await capture(eventOf(request.body))));
  });
  await sequelize.authenticate();
  return new Promise((resolve) => {
    const server = app.listen(0, '127.0.0.1', () => resolve(server));
  });
});
