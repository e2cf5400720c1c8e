/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a recipe, for the rooms that run it: verify and sign read the signature's half,
 * event reads `events`. Everything is immutable after loading and lives in the recipe's arena.
 *
 * The words of the YAML form are those of docs/providers.md. The order of enums is the order of
 * their words in load.c. */
#ifndef RECIPE_RECIPE_H
#define RECIPE_RECIPE_H

#include "oncehook/event.h"
#include "oncehook/recipe.h"
#include "recipe/pointer.h"

/* ---- values: where a piece of text stands in a request - */

/* Each is a row here, a row in value.c, and a case where values are read. */
enum recipe_from {
    RECIPE_FROM_EVENT, /* "/pointer": in one event; a step `*` is the first member that leads on */
    RECIPE_FROM_INNER, /* "inner:/pointer": in the JSON that a text of the event is */
    RECIPE_FROM_PRESENT, /* "has:/pointer": an empty text where it is there */
    RECIPE_FROM_BODY,    /* "body:/pointer": in the whole body, the same for all its events */
    RECIPE_FROM_HEADER,  /* "header:NAME" */
    RECIPE_FROM_LITERAL, /* "lit:TEXT" */
};

struct recipe_value {
    enum recipe_from from;
    struct pointer pointer; /* EVENT, INNER, PRESENT, BODY */
    struct oh_slice text;   /* HEADER: the name in lower case; LITERAL: the text */
};

struct recipe_values {
    const struct recipe_value *items;
    size_t count;
};

/* Parses one value as written in a recipe, in `map:` or in the options of `provider: hmac`. Text
 * and tokens are copied into `arena`. literal_allowed: whether "lit:" makes sense at this place.
 * Errors: OH_INVALID, OH_NO_MEMORY. */
enum oh_status recipe_value_parse(struct oh_slice text, bool literal_allowed,
                                  struct oh_arena *arena, struct recipe_value *out,
                                  struct oh_error *err) OH_MUST_CHECK;

/* The number of `word` in `list` ("a, b, c"); -1 = it is not there. Where an entry
 * ends in ':' the word may go on behind it. */
int recipe_find_word(const char *list, struct oh_slice word);

/* Copies `text` into the arena with a NUL behind it. */
enum oh_status recipe_copy(struct oh_slice text, struct oh_arena *arena, struct oh_slice *out,
                           struct oh_error *err) OH_MUST_CHECK;

/* Checks the name of a header and copies it in lower case, with a NUL behind it. */
enum oh_status recipe_header_name(struct oh_slice text, struct oh_arena *arena,
                                  struct oh_slice *out, struct oh_error *err) OH_MUST_CHECK;

/* The contract's type words as such a list. */
#define RECIPE_TYPE_WORD(name, word) word ", "
#define RECIPE_TYPES                 OH_EVENT_TYPES(RECIPE_TYPE_WORD)

/* ---- events: how a verified body is read - */

enum recipe_time_unit {
    RECIPE_UNIT_S,    /* unix seconds, a JSON number or its text, a fraction allowed */
    RECIPE_UNIT_MS,   /* unix milliseconds, likewise */
    RECIPE_UNIT_ISO,  /* RFC 3339 text; without a zone it is UTC */
    RECIPE_UNIT_AUTO, /* a number from 1e11 on is ms, below it s; else ISO, or a date of HTTP */
};

struct recipe_time {
    struct recipe_value from;
    enum recipe_time_unit unit;
};

struct recipe_word {
    struct oh_slice word; /* the provider's event type */
    unsigned value;       /* enum oh_event_type or enum oh_channel */
};

struct recipe_word_map {
    const struct recipe_word *items;
    size_t count;
};

struct recipe_names {
    const struct oh_slice *items;
    size_t count;
};

struct recipe_events {
    /* Where the array of events is, `each` tokens stand for every element of an outer array
     * ("/entry/ * /changes" without the blanks: all changes of all entries). has_split false: a
     * body that is an array is split, anything else is one event. */
    bool has_split;
    struct pointer split;

    /* Not NULL: a body of type application/x-www-form-urlencoded carries its JSON in this field
     * (GitHub's `payload=`). The event room then percent-decodes the field's value ('+' is a space)
     * into the arena and goes on with those bytes as if they were the body: `raw`, the hash rung
     * and the payload are of the decoded JSON. The signature covers the undecoded body all the
     * same. Twice: OH_UNREADABLE; a form without it is an
     * object of its fields. */
    const char *form_json_field;

    /* Not NULL: this field of a form is base64 of XML (Braintree). Pointers of one step then name
     * elements: the text of the first of that name. The event's bytes are the XML. */
    const char *form_xml_field;

    /* A text of the event that is JSON itself: values `inner:/pointer` are read in it. */
    bool has_inner, has_present;
    struct recipe_value inner;

    /* An event without it is none: verified and empty by design. */
    struct recipe_value present;

    /* The id rung: the first value that is present and usable wins. A value FROM_BODY or
     * FROM_HEADER names the delivery, so it counts only where the delivery is exactly one event. */
    struct recipe_values id;

    /* The composite rung: all of `composite` must be present and not empty (else the next rung);
     * those of `composite_optional` go in as present or absent. Order and presence are part of the
     * digest. It is computed beside an id too: the same composite under a new id is counted. count
     * == 0: none. */
    struct recipe_values composite, composite_optional;

    /* The provider's type word: alternatives, each a concatenation whose parts must all be present.
     */
    const struct recipe_values *type;
    size_t type_count;

    /* Provider's word -> the contract's. Others are OH_EVENT_OTHER, unless canonical_types: then
     * the contract's own words pass as they are. */
    struct recipe_word_map types;
    bool canonical_types;

    /* Type words of deliveries that are no events (GitHub's `ping`): verified and empty by design.
     */
    struct recipe_names pings;

    /* The channel by the provider's type word, else the fixed one. */
    struct recipe_word_map channels;
    enum oh_channel channel;

    /* The first that is present and can be read wins; count == 0: the moment of acceptance. */
    const struct recipe_time *occurred_at;
    size_t occurred_at_count;

    /* Defaults of a source's `map:`; oh_recipe_info.map_* holds their text. */
    bool has_map_enrollment, has_map_instance;
    struct recipe_value map_enrollment, map_instance;
};

/* ---- signature - */

/* What proves that a request is the provider's. The order is that of the words in load.c. */
enum recipe_algorithm {
    RECIPE_HMAC_SHA1,
    RECIPE_HMAC_SHA256,
    RECIPE_HMAC_SHA512,
    RECIPE_SHA1, /* a plain digest with the secret as a part of the message */
    RECIPE_SHA256,
    RECIPE_MD5,
    RECIPE_ECDSA_P256_SHA256, /* DER signature */
    RECIPE_ED25519,
    RECIPE_RSA_SHA1, /* PKCS #1 v1.5 */
    RECIPE_RSA_SHA256,
    RECIPE_RSA_SNS, /* SHA-1 or SHA-256 by the body's SignatureVersion */
    RECIPE_JWT,     /* JWS compact serialisation, RFC 7515; the claims bind the body */
    RECIPE_TOKEN,   /* the secret itself */
    RECIPE_BASIC,   /* RFC 7617; the secret is "user:password" */
};

/* In what form the provider shows its secret or public key. */
enum recipe_key_form {
    RECIPE_KEY_UTF8,     /* the text itself, whatever it looks like */
    RECIPE_KEY_WHSEC,    /* base64, "whsec_" before it and padding optional */
    RECIPE_KEY_HEX,      /* either case */
    RECIPE_KEY_BASE64,   /* padding optional */
    RECIPE_KEY_SHA1,     /* the key is SHA-1 of the text */
    RECIPE_KEY_SPKI_B64, /* base64 of a SubjectPublicKeyInfo; PEM is taken too */
    RECIPE_KEY_PEM,      /* likewise */
    RECIPE_KEY_RAW_B64,  /* 32 bytes of Ed25519 in base64; PEM is taken too */
    RECIPE_KEY_RAW_HEX,  /* likewise in hex */
    RECIPE_KEY_WHPK,     /* likewise in base64, "whpk_" before it optional */
    RECIPE_KEY_CERT_URL, /* a certificate that the request names; the secret is a message part */
    RECIPE_KEY_JWK,      /* one JWK (RFC 7517) of P-256, found by its `kid` */
};

/* Where a text stands in a request. */
enum recipe_in {
    RECIPE_IN_HEADER,
    RECIPE_IN_JSON,
    RECIPE_IN_QUERY,
    RECIPE_IN_FORM,
    RECIPE_IN_BODY
};

enum recipe_parse {
    RECIPE_PARSE_PLAIN,  /* the value, after `prefix` */
    RECIPE_PARSE_KV,     /* "t=1,v1=…": pairs around `separator`; `key` names the signatures */
    RECIPE_PARSE_TAGGED, /* "v1,… v1a,…": `tag` names the signatures */
    RECIPE_PARSE_POSITIONAL, /* "1,…,…": the timestamp if it is here, signatures, around `separator`
                              */
    RECIPE_PARSE_NUMBERED,  /* headers NAME1 … NAMEmax */
    RECIPE_PARSE_PIPEPAIRS, /* "key|…&key|…" */
};

#define RECIPE_ENCODINGS "hex, base64, base64url, hex-any, raw"
enum recipe_encoding {
    RECIPE_HEX,
    RECIPE_BASE64,
    RECIPE_BASE64URL,
    RECIPE_HEX_ANY,
    RECIPE_RAW /* tokens: as they are */
};

#define RECIPE_JSON_MAX 12 /* places of a JSON body that a scheme reads */

struct recipe_signature {
    enum recipe_in in;
    struct recipe_names names; /* HEADER: in lower case, the first that is present counts */
    struct recipe_names also;  /* further headers with a signature */
    struct oh_slice name;      /* QUERY, FORM */
    size_t json;               /* JSON: index into oh_recipe.json */
    enum recipe_parse parse;
    enum recipe_encoding encoding;
    struct oh_slice prefix; /* PLAIN: required before the value; len 0 = none */
    char separator;         /* KV, POSITIONAL */
    char group;             /* KV: between groups that have a timestamp each; 0 = one group */
    struct oh_slice key;  /* KV: the key of a signature; it may stand several times. TAGGED: tag */
    int64_t numbered_max; /* NUMBERED */
    bool several_headers; /* each line of a repeated header is a signature */
};

/* The order is that of the words in load.c and of the table in verify/message.c. */
enum recipe_part_kind {
    RECIPE_PART_BODY,
    RECIPE_PART_TS, /* the timestamp's text as it came */
    RECIPE_PART_SECRET,
    RECIPE_PART_METHOD,
    RECIPE_PART_URL,
    RECIPE_PART_URL_NO_QUERY,
    RECIPE_PART_URL_HUBSPOT, /* as it is, then with twelve escapes decoded */
    RECIPE_PART_URL_TWILIO, /* without and with port, each with the query as it is and re-encoded */
    RECIPE_PART_FORM_SORTED, /* names and values of the form, sorted; or bodySHA256 of the URL */
    RECIPE_PART_QUERY_SORTED,
    RECIPE_PART_BODY_ESCAPED, /* the body, then with \uXXXX for all that is not ASCII */
    RECIPE_PART_BODY_SECRET,  /* the body with the secret in the place of the signature */
    RECIPE_PART_BRAINTREE,    /* the payload, then with a line feed; no challenge */
    RECIPE_PART_PLIVO,
    RECIPE_PART_CONTENTFUL,
    RECIPE_PART_SHA256_BODY, /* 32 bytes */
    RECIPE_PART_CRC32_BODY,  /* decimal */
    RECIPE_PART_LITERAL,
    RECIPE_PART_HEADER,
    RECIPE_PART_JSON,
    RECIPE_PART_JSON_OPTIONAL, /* nothing where it is absent */
    RECIPE_PART_LINE,          /* "NAME LF value LF", nothing where it is absent */
    RECIPE_PART_FORM,
};

struct recipe_part {
    enum recipe_part_kind kind;
    struct oh_slice text;      /* LITERAL; FORM */
    struct recipe_names names; /* HEADER: in lower case, the first that is present counts */
    size_t json;               /* JSON: index into oh_recipe.json */
};

#define RECIPE_PARTS_MAX 16

enum recipe_ts_in {
    RECIPE_TS_HEADER,
    RECIPE_TS_SIGFIELD,
    RECIPE_TS_JSON,
    RECIPE_TS_JWT,
    RECIPE_TS_NONE
};

struct recipe_timestamp {
    enum recipe_ts_in in;
    struct recipe_names names; /* HEADER */
    struct oh_slice key;       /* SIGFIELD: its key among the signature's pairs */
    size_t json;               /* JSON: index into oh_recipe.json; JWT: into jwt.claims */
    enum recipe_time_unit unit;
    bool is_unsigned;         /* `signed: false`: anyone may have set it */
    int64_t past_s, future_s; /* the scheme's own window; -1 = it sets none */
    int64_t serve_past_s;     /* what `serve` uses; -1 = none */
};

/* A header that must have this very value; or, where it stands, that of the body. */
struct recipe_required {
    struct oh_slice name, value;
    bool is_json;
    size_t json;
};

/* Where the request names its certificate, and which URLs may be meant. */
struct recipe_certificate {
    bool in_json;
    struct oh_slice header;
    size_t json;
    struct recipe_names prefixes; /* "https://api.paypal.com/v1/…"; a `*` is [A-Za-z0-9-]{3,} */
    struct oh_slice suffix;
    struct recipe_names subjects; /* it is made out to one of these; ".a.com" is any host there */
    bool has_chain;               /* it comes with the chain to a public root */
    bool has_pin;
    size_t pin;     /* place of the body that has to hold the secret (RSA_SNS: the topic) */
    size_t version; /* RSA_SNS: place of "1" (SHA-1) or "2" (SHA-256) */
};

enum recipe_jwt_body {
    RECIPE_JWT_BODY_REQUIRED,
    RECIPE_JWT_BODY_OPTIONAL, /* needed where there is a body, allowed where there is none */
    RECIPE_JWT_BODY_IFF,      /* there if and only if there is a body */
};

#define RECIPE_JWT_ALGORITHMS "HS256, HS384, HS512, RS256, ES256"

/* What is asked of a token beyond its signature; `exp` and `nbf` are kept wherever they stand. */
struct recipe_jwt {
    unsigned algorithms;        /* a bit for each word of RECIPE_JWT_ALGORITHMS */
    struct oh_slice issuer;     /* claim `iss`; len 0 = any */
    struct oh_slice body_claim; /* SHA-256 of the body; len 0 = the body is not bound */
    enum recipe_encoding body_encoding;
    enum recipe_jwt_body body_rule;
    struct oh_slice url_claim; /* the URL, or its SHA-256 in hex */
    bool url_is_hashed;
    struct recipe_names require; /* claims that must be there */
    int64_t leeway_s;
};

/* ---- the recipe - */

struct oh_recipe {
    struct oh_arena *arena; /* holds the recipe itself and all it points to */
    struct oh_recipe_info info;
    enum recipe_algorithm algorithm;
    enum recipe_key_form key_form;
    struct recipe_signature signature;
    struct recipe_timestamp timestamp;
    struct recipe_part parts[RECIPE_PARTS_MAX];
    size_t part_count;
    struct pointer json[RECIPE_JSON_MAX]; /* places of the body that the signature needs */
    size_t json_count;
    bool each_item; /* `json` and the signature are of each event, all of which have to be right */
    const struct recipe_required *required;
    size_t required_count;
    struct recipe_certificate certificate;
    struct recipe_jwt jwt;
    struct recipe_events events;
};

/* The contract's type of a provider's word; OH_EVENT_OTHER when nothing is known of it. */
enum oh_event_type recipe_find_type(const struct recipe_events *events, struct oh_slice word);
/* The channel of a provider's type word. */
enum oh_channel recipe_find_channel(const struct recipe_events *events, struct oh_slice word);
/* True when deliveries of this type word are no events. */
bool recipe_is_ping(const struct recipe_events *events, struct oh_slice word);

#endif
