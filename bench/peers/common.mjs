// SPDX-License-Identifier: Apache-2.0
// What all peers share: settings, the signature check, one event of a body, the answer, two workers.
//
// Settings come as JSON in $PEER: {secret, socket, user, database}. $PEER_WORKERS, $PEER_POOL,
// $PEER_BATCH, $PEER_WAIT_MS and $PEER_FLYING try other settings than the best ones found.
import cluster from 'node:cluster';
import { createHmac, timingSafeEqual } from 'node:crypto';

export const settings = JSON.parse(process.env.PEER);

export function number(name, best) {
  return process.env[name] === undefined ? best : Number(process.env[name]);
}

export function isSigned(body, signature) {
  if (typeof signature !== 'string') return false;
  const wanted = createHmac('sha256', settings.secret).update(body).digest();
  const given = Buffer.from(signature, 'hex');
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

// What has a counter of its own.
export const COUNTED = ['sent', 'delivered', 'opened', 'clicked', 'replied', 'bounced', 'unsubscribed', 'completed'];

// The one event of a body; throws for what is none.
export function eventOf(body) {
  const text = body.toString('utf8');
  const { id, type, occurred_at: at, enrollment_id: enrollment } = JSON.parse(text);
  if (typeof id !== 'string' || typeof type !== 'string' || typeof enrollment !== 'string') throw new Error('no event');
  return { id, type, at, enrollment, text };
}

export function answer(outcome) {
  return {
    captured: outcome === 'duplicate' ? 0 : 1,
    duplicates: outcome === 'duplicate' ? 1 : 0,
    orphans: outcome === 'orphan' ? 1 : 0,
    quarantined: 0,
    spooled: 0,
  };
}

// Runs start(), which listens on a free port of 127.0.0.1 and returns the http.Server, in each worker. They
// share the port; a worker ends with its parent.
export function run(start, workers = number('PEER_WORKERS', 2)) {
  if (cluster.isPrimary) {
    let listening = 0;
    for (let i = 0; i < workers; i++) cluster.fork();
    cluster.on('listening', (worker, address) => {
      if (++listening === workers) console.log(`listening http=${address.port}\nready`);
    });
    cluster.on('exit', (worker, code) => process.exit(code || 1));
  } else {
    Promise.resolve(start()).then((server) => {
      server.keepAliveTimeout = 75000;
    }).catch((error) => {
      console.error(error);
      process.exit(1);
    });
  }
}
