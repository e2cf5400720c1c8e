// SPDX-License-Identifier: Apache-2.0
// The providers' SDKs behind one form. Each row: provider and scheme of the gateway; secret() gives what the
// gateway is configured with, `key` to sign with where that is another; verify(request, secret) is the SDK's own
// verdict (an exception is a no); sign(request, secret, now) its own signature, where it has one, as headers.
import { createRequire } from "node:module";
import crypto from "node:crypto";

import Stripe from "stripe";
import { Webhooks } from "@octokit/webhooks";
import { Webhook as Svix } from "svix";
import { Webhook as Standard } from "standardwebhooks";
import { EventWebhook } from "@sendgrid/eventwebhook";
import { WebhooksHelper } from "square";
import { verifyKey } from "discord-interactions";
import { Signature as HubSpot } from "@hubspot/api-client";
import "@shopify/shopify-api/adapters/node";
import { shopifyApi, ApiVersion } from "@shopify/shopify-api";
import { isValidSlackRequest } from "@slack/bolt";
import { encodeSignatureHeader, isValidSignature } from "@sanity/webhook";
import braintree from "braintree";
import { signRequest, verifyRequest } from "@contentful/node-apps-toolkit";
import Razorpay from "razorpay";
import { validateSignature as validateLine } from "@line/bot-sdk";
import { validateV3Signature } from "plivo";
import { sign as signRetell, verify as verifyRetell } from "retell-sdk";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import { verifySignature as verifyGoCardless } from "gocardless-nodejs";
import OpenAI from "openai";
import adyen from "@adyen/api-library";
import { TelnyxWebhook } from "telnyx/lib/webhooks";
import { ElevenLabsClient } from "@elevenlabs/elevenlabs-js";
import { WebflowClient } from "webflow-api";
import { Paddle } from "@paddle/paddle-node-sdk";
import { verifySignature as verifyVonage } from "@vonage/jwt";

const require = createRequire(import.meta.url);
const twilio = require("twilio/lib/webhooks/webhooks.js");
const coinbase = require("coinbase-commerce-node").Webhook;
const messagebird = require("messagebird/lib/webhook-signature-jwt.js");

const letters = (n = 32) => crypto.randomBytes(n).toString("base64url").slice(0, n);
const whsec = () => "whsec_" + crypto.randomBytes(24 + crypto.randomInt(20)).toString("base64");
const text = () => ({ secret: letters(16 + crypto.randomInt(40)) });
const get = (request, name) => request.headers[name];
const form = (body) => {
  const fields = {};
  for (const [name, value] of new URLSearchParams(body))
    fields[name] = name in fields ? [].concat(fields[name], value) : value;
  return fields;
};
const threw = async (what) => {
  try {
    await what();
    return true;
  } catch {
    return false;
  }
};

function pair(type, options, shown) {
  const { publicKey, privateKey } = crypto.generateKeyPairSync(type, options);
  return { secret: shown(publicKey.export({ type: "spki", format: "der" })),
           key: privateKey.export({ type: "pkcs8", format: "pem" }) };
}

// Svix and Standard Webhooks differ in the names of their headers.
const standard = (sdk, provider, prefix, Webhook) => ({
  sdk, provider, scheme: provider, secret: () => ({ secret: whsec() }), signature: `${prefix}-signature`,
  time: `${prefix}-timestamp`,
  sign: (r, s, now) => {
    const id = "msg_" + letters(20);
    return { [`${prefix}-id`]: id, [`${prefix}-timestamp`]: String(now),
             [`${prefix}-signature`]: new Webhook(s.secret).sign(id, new Date(now * 1000), r.body) };
  },
  verify: (r, s) => threw(() => new Webhook(s.secret).verify(r.body, r.headers, { parse: false })),
});

const hubspot = (version, name) => ({
  sdk: `@hubspot/api-client ${version}`, provider: "hubspot", scheme: `hubspot_${version}`, secret: text,
  signature: name, ...(version === "v3" ? { time: "x-hubspot-request-timestamp" } : {}),
  sign: (r, s, now) => {
    const options = { clientSecret: s.secret, requestBody: r.body, url: r.url, timestamp: now * 1000 };
    const signature = HubSpot.getSignature("POST", version, options);
    return { [name]: signature,
             ...(version === "v3" ? { "x-hubspot-request-timestamp": String(now * 1000) } : {}) };
  },
  verify: (r, s) => threw(() => {
    if (!HubSpot.isValid({ method: "POST", signatureVersion: version, clientSecret: s.secret, requestBody: r.body,
                           url: r.url, signature: get(r, name),
                           timestamp: Number(get(r, "x-hubspot-request-timestamp")) }))
      throw new Error("no");
  }),
});

const shopify = (secret) => shopifyApi({
  apiKey: "key", apiSecretKey: secret, apiVersion: ApiVersion?.July25 ?? "2025-07", isEmbeddedApp: true,
  hostName: "hooks.example.com", scopes: [], logger: { level: 0 } });

// It asks for the pair of its own public key; the one that the gateway signs with is called so.
const braintreeOf = (privateKey) => new braintree.BraintreeGateway({
  environment: braintree.Environment.Sandbox, merchantId: "m", publicKey: "oncehook", privateKey });

export default [
  { sdk: "stripe", provider: "stripe", scheme: "stripe", secret: () => ({ secret: "whsec_" + letters() }),
    signature: "stripe-signature",
    sign: (r, s, now) => ({ "stripe-signature": Stripe.webhooks.generateTestHeaderString(
      { payload: r.body, secret: s.secret, timestamp: now }) }),
    verify: (r, s) => threw(() => Stripe.webhooks.constructEvent(r.body, get(r, "stripe-signature"), s.secret)) },
  { sdk: "@octokit/webhooks", provider: "github", scheme: "github", secret: text, signature: "x-hub-signature-256",
    sign: async (r, s) => ({ "x-hub-signature-256": await new Webhooks(s).sign(r.body) }),
    verify: (r, s) => new Webhooks(s).verify(r.body, get(r, "x-hub-signature-256")) },
  standard("svix", "svix", "svix", Svix),
  standard("standardwebhooks", "standard_webhooks", "webhook", Standard),
  { sdk: "openai", provider: "openai", scheme: "openai", secret: () => ({ secret: whsec() }),
    signature: "webhook-signature", time: "webhook-timestamp",
    verify: (r, s) => threw(() => new OpenAI({ apiKey: "none" }).webhooks.verifySignature(r.body, r.headers,
                                                                                        s.secret)) },
  { sdk: "twilio (form)", provider: "twilio", scheme: "twilio", secret: text, signature: "x-twilio-signature",
    form: true,
    sign: (r, s) => ({ "x-twilio-signature": twilio.getExpectedTwilioSignature(s.secret, r.url, form(r.body)) }),
    verify: (r, s) => twilio.validateRequest(s.secret, get(r, "x-twilio-signature"), r.url, form(r.body)) },
  { sdk: "twilio (JSON)", provider: "twilio", scheme: "twilio", secret: text, signature: "x-twilio-signature",
    url: (r) => `${r.url}&bodySHA256=${twilio.getExpectedBodyHash(r.body)}`,
    sign: (r, s) => ({ "x-twilio-signature": twilio.getExpectedTwilioSignature(s.secret, r.url, {}) }),
    verify: (r, s) => twilio.validateRequestWithBody(s.secret, get(r, "x-twilio-signature"), r.url, r.body) },
  { sdk: "@sendgrid/eventwebhook", provider: "sendgrid", scheme: "sendgrid",
    secret: () => pair("ec", { namedCurve: "P-256" }, (der) => der.toString("base64")),
    signature: "x-twilio-email-event-webhook-signature", time: "x-twilio-email-event-webhook-timestamp",
    verify: (r, s) => {
      const sdk = new EventWebhook();
      return sdk.verifySignature(sdk.convertPublicKeyToECDSA(s.secret), r.body,
                                 get(r, "x-twilio-email-event-webhook-signature"),
                                 get(r, "x-twilio-email-event-webhook-timestamp"));
    } },
  { sdk: "square", provider: "square", scheme: "square", secret: text, signature: "x-square-hmacsha256-signature",
    verify: (r, s) => WebhooksHelper.verifySignature({
      requestBody: r.body, signatureHeader: get(r, "x-square-hmacsha256-signature"), signatureKey: s.secret,
      notificationUrl: r.url }) },
  { sdk: "discord-interactions", provider: "discord", scheme: "discord",
    secret: () => pair("ed25519", {}, (der) => der.subarray(-32).toString("hex")),
    signature: "x-signature-ed25519", time: "x-signature-timestamp",
    verify: (r, s) => verifyKey(r.body, get(r, "x-signature-ed25519"), get(r, "x-signature-timestamp"), s.secret) },
  hubspot("v1", "x-hubspot-signature"),
  hubspot("v2", "x-hubspot-signature"),
  hubspot("v3", "x-hubspot-signature-v3"),
  { sdk: "@shopify/shopify-api", provider: "shopify", scheme: "shopify", secret: text,
    signature: "x-shopify-hmac-sha256",
    extra: () => ({ "x-shopify-topic": "orders/create", "x-shopify-shop-domain": "a.myshopify.com",
                    "x-shopify-api-version": "2025-07", "x-shopify-webhook-id": crypto.randomUUID() }),
    // The gateway takes both names and signs under the newer one.
    rename: ({ "shopify-hmac-sha256": signature, ...others }) => ({ ...others, "x-shopify-hmac-sha256": signature }),
    verify: async (r, s) => (await shopify(s.secret).webhooks.validate({
      rawBody: r.body, rawRequest: { method: "POST", url: "/", headers: r.headers }, rawResponse: {} })).valid },
  { sdk: "@slack/bolt", provider: "slack", scheme: "slack", secret: text, signature: "x-slack-signature",
    time: "x-slack-request-timestamp",
    verify: (r, s) => isValidSlackRequest({ signingSecret: s.secret, body: r.body, headers: {
      "x-slack-signature": get(r, "x-slack-signature"),
      "x-slack-request-timestamp": Number(get(r, "x-slack-request-timestamp")) } }) },
  { sdk: "@sanity/webhook", provider: "sanity", scheme: "sanity", secret: text,
    signature: "sanity-webhook-signature",
    sign: async (r, s, now) => ({ "sanity-webhook-signature": await encodeSignatureHeader(r.body, now * 1000,
                                                                                          s.secret) }),
    verify: (r, s) => isValidSignature(r.body, get(r, "sanity-webhook-signature"), s.secret) },
  { sdk: "braintree", provider: "braintree", scheme: "braintree", secret: text, form: true, whole: true,
    body: () => "bt_payload=" + encodeURIComponent(
      Buffer.from(`<notification><kind>check</kind><a>${letters(40)}</a></notification>`).toString("base64") + "\n"),
    verify: (r, s) => {
      const fields = form(r.body);
      return braintreeOf(s.secret).webhookNotification.parse(fields.bt_signature ?? "", fields.bt_payload ?? "")
        .then(() => true, (error) => error.type !== "invalidSignatureError");
    } },
  { sdk: "@contentful/node-apps-toolkit", provider: "contentful", scheme: "contentful",
    secret: () => ({ secret: letters(64) }), signature: "x-contentful-signature", time: "x-contentful-timestamp",
    sign: (r, s, now) => signRequest(s.secret, { method: "POST", path: r.url.replace("https://hooks.example.com", ""),
                                                 headers: r.headers, body: r.body }, now * 1000),
    verify: (r, s) => threw(() => {
      if (!verifyRequest(s.secret, { method: "POST", path: r.url.replace("https://hooks.example.com", ""),
                                     headers: r.headers, body: r.body }, 30))
        throw new Error("no");
    }) },
  { sdk: "razorpay", provider: "razorpay", scheme: "razorpay", secret: text, signature: "x-razorpay-signature",
    verify: (r, s) => Razorpay.validateWebhookSignature(r.body, get(r, "x-razorpay-signature"), s.secret) },
  { sdk: "@line/bot-sdk", provider: "line", scheme: "line", secret: text, signature: "x-line-signature",
    verify: (r, s) => validateLine(r.body, s.secret, get(r, "x-line-signature")) },
  { sdk: "plivo", provider: "plivo", scheme: "plivo_v3", secret: text, signature: "x-plivo-signature-v3", form: true,
    verify: (r, s) => validateV3Signature("POST", r.url, get(r, "x-plivo-signature-v3-nonce"), s.secret,
                                          get(r, "x-plivo-signature-v3"), form(r.body)) },
  { sdk: "retell-sdk", provider: "retell", scheme: "retell", secret: text, signature: "x-retell-signature",
    sign: async (r, s) => ({ "x-retell-signature": await signRetell(r.body, s.secret) }),
    verify: (r, s) => verifyRetell(r.body, s.secret, get(r, "x-retell-signature")) },
  { sdk: "@linear/sdk", provider: "linear", scheme: "linear", secret: text, signature: "linear-signature",
    verify: (r, s) => new LinearWebhookClient(s.secret).verify(Buffer.from(r.body), get(r, "linear-signature"),
                                                               JSON.parse(r.body).webhookTimestamp) },
  { sdk: "gocardless-nodejs", provider: "gocardless", scheme: "gocardless", secret: text,
    signature: "webhook-signature",
    verify: (r, s) => threw(() => verifyGoCardless(r.body, s.secret, get(r, "webhook-signature"))) },
  { sdk: "@adyen/api-library (payments)", provider: "adyen", scheme: "adyen",
    secret: () => ({ secret: crypto.randomBytes(32).toString("hex").toUpperCase() }), whole: true,
    body: () => JSON.stringify({ live: "false", notificationItems: Array.from({ length: 1 }, () => ({
      NotificationRequestItem: { pspReference: letters(16), merchantAccountCode: "A:\\" + letters(4),
                                 merchantReference: letters(8), amount: { value: crypto.randomInt(10000), currency: "EUR" },
                                 eventCode: "AUTHORISATION", success: "true", additionalData: {} } })) }),
    change: (r) => { r.body = r.body.replace('"success":"true"', '"success":"false"'); },
    verify: (r, s) => JSON.parse(r.body).notificationItems.every(
      (item) => new adyen.hmacValidator().validateHMAC(item.NotificationRequestItem, s.secret)) },
  { sdk: "@adyen/api-library (platforms)", provider: "adyen", scheme: "adyen_platform",
    secret: () => ({ secret: crypto.randomBytes(32).toString("hex") }), signature: "hmacsignature",
    sign: (r, s) => ({ hmacsignature: new adyen.hmacValidator().calculateHmac(r.body, s.secret) }),
    verify: (r, s) => new adyen.hmacValidator().validateHMACSignature(s.secret, get(r, "hmacsignature"), r.body) },
  { sdk: "telnyx", provider: "telnyx", scheme: "telnyx",
    secret: () => pair("ed25519", {}, (der) => der.subarray(-32).toString("base64")),
    signature: "telnyx-signature-ed25519", time: "telnyx-timestamp",
    verify: (r, s) => threw(() => new TelnyxWebhook(s.secret).verify(r.body, r.headers)) },
  { sdk: "@elevenlabs/elevenlabs-js", provider: "elevenlabs", scheme: "elevenlabs", secret: text,
    signature: "elevenlabs-signature",
    verify: (r, s) => threw(() => new ElevenLabsClient({ apiKey: "none" }).webhooks.constructEvent(
      r.body, get(r, "elevenlabs-signature"), s.secret)) },
  { sdk: "webflow-api", provider: "webflow", scheme: "webflow", secret: text, signature: "x-webflow-signature",
    time: "x-webflow-timestamp",
    verify: (r, s) => new WebflowClient({ accessToken: "none" }).webhooks.verifySignature(
      { headers: r.headers, body: r.body, secret: s.secret }) },
  { sdk: "coinbase-commerce-node", provider: "coinbase_commerce", scheme: "coinbase_commerce", secret: text,
    signature: "x-cc-webhook-signature",
    sign: (r, s) => ({ "x-cc-webhook-signature": coinbase.computeSignature(r.body, s.secret) }),
    verify: (r, s) => threw(() => coinbase.verifySigHeader(r.body, get(r, "x-cc-webhook-signature"), s.secret)) },
  { sdk: "@paddle/paddle-node-sdk", provider: "paddle", scheme: "paddle", secret: text, signature: "paddle-signature",
    verify: (r, s) => new Paddle("none").webhooks.isSignatureValid(r.body, s.secret, get(r, "paddle-signature")) },
  { sdk: "@vonage/jwt", provider: "vonage", scheme: "vonage", secret: text, signature: "authorization",
    verify: (r, s) => verifyVonage(get(r, "authorization").replace("Bearer ", ""), s.secret) },
  { sdk: "messagebird", provider: "messagebird", scheme: "messagebird", secret: text,
    signature: "messagebird-signature-jwt",
    verify: (r, s) => threw(() => messagebird.verify(r.url, Buffer.from(r.body),
                                                     get(r, "messagebird-signature-jwt"),
                                                     crypto.createSecretKey(Buffer.from(s.secret)))) },
];
