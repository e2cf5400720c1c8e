/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of base/encode.h: round trips, RFC 4648 vectors, and one text only for each value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/encode.h"
#include "base/slice.h"

#include <stdlib.h>
#include <string.h>

static bool base64_reads(const char *text, unsigned flags)
{
    uint8_t out[64];
    size_t len;
    return base64_decode(slice_of_text(text), flags, out, sizeof(out), &len);
}

static void base64_agrees_with_rfc_4648(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } rows[] = {{"", ""},
                {"f", "Zg=="},
                {"fo", "Zm8="},
                {"foo", "Zm9v"},
                {"foob", "Zm9vYg=="},
                {"fooba", "Zm9vYmE="},
                {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[16];
        size_t len = base64_encode(rows[i].bytes, strlen(rows[i].bytes), text);
        assert_int_equal(len, strlen(rows[i].text));
        assert_int_equal(len, BASE64_BYTES(strlen(rows[i].bytes)));
        assert_memory_equal(text, rows[i].text, len);
        uint8_t bytes[16];
        assert_true(base64_decode(slice_of_text(rows[i].text), 0, bytes, sizeof(bytes), &len));
        assert_int_equal(len, strlen(rows[i].bytes));
        assert_memory_equal(bytes, rows[i].bytes, len);
    }
}

static void base64_refuses_what_is_not_canonical(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "Zg",    "Zg=",   "Zg===",    "Zh==",     "Zm9=", "=",    "====",  "Z",    "Zm9v\n",
        " Zm9v", "Zm 9v", "Zm9v====", "Zg==Zg==", "Z===", "Zm-v", "Zm9v=", "Zg=g", "\xc3\xa9gg"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(base64_reads(bad[i], 0));
    assert_true(base64_reads("Zg", BASE64_PADDING_OPTIONAL));
    assert_true(base64_reads("Zg==", BASE64_PADDING_OPTIONAL));
    assert_false(base64_reads("Zg=", BASE64_PADDING_OPTIONAL));
    assert_false(base64_reads("Zh", BASE64_PADDING_OPTIONAL));
    assert_true(base64_reads("-_-_", BASE64_URL));
    assert_false(base64_reads("+/+/", BASE64_URL));
    assert_false(base64_reads("-_-_", 0));
}

/* A published reject vector of Sanity's differs from the right signature only in bits that decoding
 * throws away; 32 bytes leave two such bits in the last symbol. */
static void base64_refuses_every_twin_of_a_signature(void **state)
{
    (void)state;
    uint8_t mac[32], out[32];
    for (size_t i = 0; i < sizeof(mac); i++)
        mac[i] = (uint8_t)(i * 37 + 11);
    char text[BASE64_BYTES(32)];
    size_t len = base64_encode(mac, sizeof(mac), text), out_len;
    char right = text[42];
    int accepted = 0;
    for (int c = 0; c < 256; c++) {
        text[42] = (char)c;
        if (!base64_decode(slice_of(text, len), 0, out, sizeof(out), &out_len))
            continue;
        accepted++;
        assert_int_equal(c == right, memcmp(out, mac, sizeof(mac)) == 0);
    }
    assert_int_equal(accepted, 16); /* 64 symbols, 4 of each share their four meaningful bits */
}

static void base64_keeps_to_the_room_it_is_given(void **state)
{
    (void)state;
    uint8_t *out = malloc(3); /* the sanitizer guards what lies behind */
    assert_non_null(out);
    size_t len;
    assert_false(base64_decode(slice_of_text("Zm9vYg=="), 0, out, 3, &len));
    assert_true(base64_decode(slice_of_text("Zm9v"), 0, out, 3, &len));
    free(out);
}

static void base64url_is_unpadded(void **state)
{
    (void)state;
    char text[8];
    assert_int_equal(base64url_encode("\xfb\xff", 2, text), 3);
    assert_memory_equal(text, "-_8", 3);
}

static void hex_takes_lower_case_only_unless_told(void **state)
{
    (void)state;
    uint8_t out[4];
    size_t len;
    assert_true(hex_decode(slice_of_text("00ff7a"), false, out, sizeof(out), &len));
    assert_int_equal(len, 3);
    assert_memory_equal(out, "\x00\xff\x7a", 3);
    assert_false(hex_decode(slice_of_text("00FF"), false, out, sizeof(out), &len));
    assert_true(hex_decode(slice_of_text("00Ff"), true, out, sizeof(out), &len));
    assert_false(hex_decode(slice_of_text("0"), false, out, sizeof(out), &len));
    assert_false(hex_decode(slice_of_text("0g"), false, out, sizeof(out), &len));
    assert_false(hex_decode(slice_of_text("0x"), true, out, sizeof(out), &len));
    assert_false(hex_decode(slice_of_text("0011223344"), false, out, sizeof(out), &len));
    char text[6];
    hex_encode("\x00\xff\x7a", 3, text);
    assert_memory_equal(text, "00ff7a", 6);
}

static void uuid_round_trips_and_refuses_other_forms(void **state)
{
    (void)state;
    static const char text[] = "0123ABcd-4567-89ef-0123-456789abcdef";
    uint8_t uuid[16];
    char back[36];
    assert_true(uuid_parse(slice_of_text(text), uuid));
    uuid_format(uuid, back);
    assert_memory_equal(back, "0123abcd-4567-89ef-0123-456789abcdef", 36);
    static const char *const bad[] = {
        "",
        "0123abcd456789ef0123456789abcdef",
        "0123abcd-4567-89ef-0123-456789abcde",
        "0123abcd-4567-89ef-0123-456789abcdef0",
        "{123abcd-4567-89ef-0123-456789abcde}",
        "0123abcd-4567-89ef-01234-56789abcdef",
        "0123abcd+4567-89ef-0123-456789abcdef",
        "0123abcg-4567-89ef-0123-456789abcdef",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(uuid_parse(slice_of_text(bad[i]), uuid));
}

static void uuid_random_marks_version_4_and_does_not_repeat(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static uint8_t all[MANY][16];
    for (size_t i = 0; i < MANY; i++) {
        uuid_random(all[i]);
        assert_int_equal(all[i][6] >> 4, 4);
        assert_int_equal(all[i][8] >> 6, 2);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(all[i], all[j], 16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_agrees_with_rfc_4648),
        cmocka_unit_test(base64_refuses_what_is_not_canonical),
        cmocka_unit_test(base64_refuses_every_twin_of_a_signature),
        cmocka_unit_test(base64_keeps_to_the_room_it_is_given),
        cmocka_unit_test(base64url_is_unpadded),
        cmocka_unit_test(hex_takes_lower_case_only_unless_told),
        cmocka_unit_test(uuid_round_trips_and_refuses_other_forms),
        cmocka_unit_test(uuid_random_marks_version_4_and_does_not_repeat),
    };
    return cmocka_run_group_tests_name("encode", tests, NULL, NULL);
}
