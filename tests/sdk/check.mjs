// SPDX-License-Identifier: Apache-2.0
// node check.mjs ONCEHOOK SIGN [COUNT [NAME]]: COUNT random requests for each SDK (whose name has NAME in it) and way
// (signed by the SDK, signed by liboncehook), half of them spoilt; the SDK's verdict beside the gateway's. Exit 1 on a difference that
// differences.json does not explain, and on an explanation that is not needed.
import { execFileSync } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import sdks from "./sdks.mjs";

const [oncehook, signer, count = "1000", only] = process.argv.slice(2);
const known = JSON.parse(fs.readFileSync(new URL("differences.json", import.meta.url)));
const now = () => Math.floor(Date.now() / 1000);
const pick = (list) => list[crypto.randomInt(list.length)];
const word = () => Array.from({ length: 1 + crypto.randomInt(12) }, () => pick(
  [..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", " ", "/", "\\", "\"", "é", "ß", "中", "😀",
   "\u2028", "\t", "+", "&", "=", "%", "'", "<"])).join("");

function randomBody(isForm) {
  const fields = Array.from({ length: 1 + crypto.randomInt(5) }, (_, i) => [`Field${i}${pick(["", "_x", "A"])}`, word()]);
  if (isForm)
    return new URLSearchParams(fields).toString();
  const value = { id: "evt_" + crypto.randomUUID(), type: "a.b", created: now(), webhookTimestamp: Date.now(),
                  ...Object.fromEntries(fields) };
  return JSON.stringify(value, null, pick([0, 0, 1])) + pick(["", "", "\n", "\r\n"]);
}

// Another character of the same kind at a random place of what may differ.
function alter(value) {
  const at = crypto.randomInt(value.length);
  const other = /[0-9]/.test(value[at]) ? String((Number(value[at]) + 1) % 10) : value[at] === "a" ? "b" : "a";
  return value.slice(0, at) + other + value.slice(at + 1);
}

// What is done to a request. `before`: to the time that is signed. A row without `use` is for all.
const spoilings = {
  "body changed": { after: (r, row) => { if (row.change) row.change(r); else r.body = row.whole ? r.body.replace(/^(bt_payload=.{8})./, "$1_")
                                                           : r.body.replace(/(id|Field0[^=]*)("?[:=] ?"?)/, "$1x$2"); } },
  "body without its end": { use: (row) => !row.whole && !row.form, after: (r) => { r.body = r.body.trimEnd().slice(0, -1); } },
  "signature changed": { use: (row) => row.signature, after: (r, row) => {
    const value = r.headers[row.signature], cut = Math.max(value.lastIndexOf("="), value.lastIndexOf(",")) + 1;
    const from = /^[A-Za-z0-9+/_-]{10}/.test(value.slice(cut)) ? cut : 0;
    r.headers[row.signature] = value.slice(0, from) + alter(value.slice(from, from + 20)) + value.slice(from + 20); } },
  "signature missing": { use: (row) => row.signature, after: (r, row) => { delete r.headers[row.signature]; } },
  "signature in capitals": { use: (row) => row.signature, after: (r, row) => {
    r.headers[row.signature] = r.headers[row.signature].replace(/[0-9a-f]{40,}$/, (hex) => hex.toUpperCase()); } },
  "signature without padding": { use: (row) => row.signature, after: (r, row) => {
    r.headers[row.signature] = r.headers[row.signature].replace(/=+$/, ""); } },
  "another secret": { secret: true },
  "time changed": { use: (row) => row.time, after: (r, row) => { r.headers[row.time] = alter(r.headers[row.time]); } },
  "signed 400 s ago": { before: -400 },
  "signed 100 s ago": { before: -100 },
  "signed 400 s ahead": { before: 400 },
  "signed 100 s ahead": { before: 100 },
};

async function makeRequests(row, bySdk, total) {
  const made = [];
  for (let i = 0; i < total; i++) {
    const names = Object.keys(spoilings).filter((n) => !spoilings[n].use || spoilings[n].use(row));
    const name = i % 2 ? pick(names) : "none", spoiling = spoilings[name] ?? {};
    const secret = row.secret(), at = now() + (spoiling.before ?? 0);
    const request = { method: "POST", url: `https://hooks.example.com/in/${encodeURIComponent(word())}?a=${i}`,
                      headers: { "content-type": row.form ? "application/x-www-form-urlencoded" : "application/json",
                                 ...(row.extra?.() ?? {}) },
                      body: row.body?.() ?? randomBody(row.form) };
    if (row.url)
      request.url = row.url(request);
    if (bySdk)
      Object.assign(request.headers, await row.sign(request, secret, at));
    made.push({ name, spoiling, secret, request, at });
  }
  if (!bySdk) {
    const input = made.map((m) => ({ ...m.request, provider: row.provider, scheme: row.scheme,
                                     key: m.secret.key ?? m.secret.secret, now: m.at }));
    const signed = JSON.parse(execFileSync(signer, { input: JSON.stringify(input), maxBuffer: 1 << 28 }));
    signed.forEach((s, i) => {
      const headers = Object.fromEntries(Object.entries(s.headers).map(([n, v]) => [n.toLowerCase(), v]));
      Object.assign(made[i].request, { url: s.url, headers: row.rename?.(headers) ?? headers, body: s.body });
    });
  }
  for (const m of made) {
    m.spoiling.after?.(m.request, row);
    if (m.spoiling.secret)
      m.secret = row.secret();
  }
  return made;
}

async function checkWay(row, bySdk, total) {
  const made = await makeRequests(row, bySdk, total), records = [], results = { accepted: 0, differences: {} };
  for (const [i, m] of made.entries()) {
    let accepted = false;
    try {
      accepted = Boolean(await row.verify(m.request, m.secret));
    } catch {
      accepted = false;
    }
    results.accepted += accepted;
    records.push({ id: String(i), provider: row.provider, scheme: row.scheme, ...m.request, secret: m.secret.secret,
                   now: now(), expect: accepted ? "accept" : "reject" });
  }
  const file = path.join(os.tmpdir(), `oncehook-sdk-${process.pid}.json`);
  fs.writeFileSync(file, JSON.stringify(records), { mode: 0o600 });
  let said;
  try {
    said = execFileSync(oncehook, ["verify", file], { encoding: "utf8", maxBuffer: 1 << 26 });
  } catch (error) {
    said = error.stdout;
  } finally {
    fs.unlinkSync(file);
  }
  const lines = said.trim().split("\n").slice(0, -1);
  if (lines.length !== total)
    throw new Error(`${row.sdk}: oncehook judged ${lines.length} of ${total}`);
  for (const line of lines) {
    const [id, verdict, reason, ok] = line.split("\t");
    if (ok === "ok")
      continue;
    const what = `${made[id].name}: the gateway says ${verdict}`;
    (results.differences[what] ??= []).push({ reason, record: records[id] });
  }
  return results;
}

let failed = false;
const print = (...columns) => console.log(columns[0].padEnd(32), columns[1].padEnd(12), ...columns.slice(2).map((c) => String(c).padStart(9)));
print("SDK", "SIGNED BY", "REQUESTS", "ACCEPTED", "DIFFERENT");
for (const row of sdks) {
  if (only && !row.sdk.includes(only))
    continue;
  const seen = new Set();
  for (const bySdk of row.sign ? [true, false] : [false]) {
    const { accepted, differences } = await checkWay(row, bySdk, Number(count));
    const number = Object.values(differences).reduce((sum, list) => sum + list.length, 0);
    print(row.sdk, bySdk ? "the SDK" : "liboncehook", count, accepted, number);
    for (const [what, list] of Object.entries(differences)) {
      const because = known[row.sdk]?.[what];
      seen.add(what);
      console.log(`    ${what}, ${list.length} times: ${because ?? "NOT EXPLAINED"}`);
      if (!because) {
        failed = true;
        console.log(`    for example ${JSON.stringify(list[0])}`);
      }
    }
    if (accepted < count / 4) {
      failed = true;
      console.log("    the SDK accepts too few to say anything");
    }
  }
  for (const what of Object.keys(known[row.sdk] ?? {}))
    if (!seen.has(what) && count >= 500) { // of fewer, some are not drawn
      failed = true;
      console.log(`    ${what}: explained, and no longer seen`);
    }
}
process.exitCode = failed ? 1 : 0;
