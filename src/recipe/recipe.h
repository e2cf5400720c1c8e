/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a recipe, for the rooms that run it: verify and sign read the signature's half,
 * event reads `events`. Everything is immutable after loading and lives in the recipe's arena.
 *
 * The words of the YAML form are those of docs/providers.md. A word that the form knows and this
 * program does not do yet is refused by the loader, so no room below has to expect it. The order of
 * enums is the order of their words in load.c. */
#ifndef RECIPE_RECIPE_H
#define RECIPE_RECIPE_H

#include "oncehook/event.h"
#include "oncehook/recipe.h"
#include "recipe/pointer.h"

/* ---- values: where a piece of text stands in a request - */

/* To come with the providers that need them: `form:NAME` (a decoded form field), `query:NAME`,
 * `jwt:/CLAIM`. Each is a row here, a row in value.c, and a case where values are read. */
enum recipe_from {
    RECIPE_FROM_EVENT,   /* "/pointer": in one event */
    RECIPE_FROM_BODY,    /* "body:/pointer": in the whole body, the same for all its events */
    RECIPE_FROM_HEADER,  /* "header:NAME" */
    RECIPE_FROM_LITERAL, /* "lit:TEXT" */
};

struct recipe_value {
    enum recipe_from from;
    struct pointer pointer; /* EVENT, BODY */
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

/* The number of `word` in `list` ("a, b, c"), up to a '|'; -1 = it is not there. Where an entry
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
    RECIPE_UNIT_AUTO, /* a number from 1e11 on is ms, below it s; any other text is ISO */
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
     * same. Field missing or twice: OH_UNREADABLE. */
    const char *form_json_field;

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

enum recipe_algorithm {
    RECIPE_HMAC_SHA1,
    RECIPE_HMAC_SHA256,
    RECIPE_HMAC_SHA512,
    RECIPE_ECDSA_P256_SHA256, /* DER signature */
};

/* In what form the provider shows its secret or public key. */
enum recipe_key_form {
    RECIPE_KEY_UTF8,     /* the text itself, whatever it looks like */
    RECIPE_KEY_SPKI_B64, /* base64 of a SubjectPublicKeyInfo; PEM is taken too */
};

enum recipe_parse {
    RECIPE_PARSE_PLAIN, /* the value, after `prefix` */
    RECIPE_PARSE_KV,    /* "t=1,v1=…": pairs around `separator`; `key` names the signatures */
};

#define RECIPE_ENCODINGS "hex, base64"
enum recipe_encoding { RECIPE_HEX, RECIPE_BASE64 };

struct recipe_signature {
    struct recipe_names names; /* of headers, in lower case; the first that is present counts */
    enum recipe_parse parse;
    enum recipe_encoding encoding;
    struct oh_slice prefix; /* PLAIN: required before the value; len 0 = none */
    char separator;         /* KV: between pairs */
    struct oh_slice key;    /* KV: the key of a signature; it may stand several times */
};

enum recipe_part_kind { RECIPE_PART_BODY, RECIPE_PART_TS, RECIPE_PART_LITERAL };

struct recipe_part {
    enum recipe_part_kind kind;
    struct oh_slice literal;
};

#define RECIPE_PARTS_MAX 16

enum recipe_ts_in { RECIPE_TS_HEADER, RECIPE_TS_SIGFIELD, RECIPE_TS_NONE };

struct recipe_timestamp {
    enum recipe_ts_in in;
    struct recipe_names names;  /* HEADER */
    struct oh_slice key;        /* SIGFIELD: its key among the signature's pairs */
    enum recipe_time_unit unit; /* S or MS */
    int64_t past_s, future_s;   /* the scheme's own window; -1 = it sets none */
    int64_t serve_past_s;       /* what `serve` uses; -1 = none */
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
    struct recipe_events events;
};

/* The contract's type of a provider's word; OH_EVENT_OTHER when nothing is known of it. */
enum oh_event_type recipe_find_type(const struct recipe_events *events, struct oh_slice word);
/* The channel of a provider's type word. */
enum oh_channel recipe_find_channel(const struct recipe_events *events, struct oh_slice word);
/* True when deliveries of this type word are no events. */
bool recipe_is_ping(const struct recipe_events *events, struct oh_slice word);

#endif
