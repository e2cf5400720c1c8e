// SPDX-License-Identifier: Apache-2.0
// The HTTP side of both Fastify peers: capture(event) resolves to 'captured', 'orphan' or 'duplicate'
// when the event's transaction has committed.
import fastify from 'fastify';
import postgres from 'postgres';
import { answer, eventOf, isSigned, run, settings } from './common.mjs';

const SCHEMA = {
  type: 'object',
  properties: Object.fromEntries(
    ['captured', 'duplicates', 'orphans', 'quarantined', 'spooled'].map((name) => [name, { type: 'integer' }])),
};

export function connect(max) {
  return postgres({
    host: settings.socket, username: settings.user, database: settings.database, max, prepare: true,
    idle_timeout: 0, max_lifetime: null, onnotice: () => {},
  });
}

export function serve(capture) {
  run(async () => {
    const app = fastify({ logger: false, keepAliveTimeout: 75000 });
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => done(null, body));
    app.post('/in/:source', { schema: { response: { 200: SCHEMA } } }, async (request, reply) => {
      if (!isSigned(request.body, request.headers['x-signature'])) return reply.code(401).send();
      return answer(await capture(eventOf(request.body)));
    });
    await app.listen({ host: '127.0.0.1', port: 0 });
    return app.server;
  });
}
