/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of store/sqlstate: no state is ever taken for a commit, unknown means unknown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "store/store.h"

#include <stdio.h>
#include <string.h>

static void sqlstate_asks_for_what_the_table_says(void **state)
{
    (void)state;
    static const struct {
        const char *sqlstate;
        bool names_constraint;
        enum store_action action;
    } rows[] = {
        {"", false, STORE_RECONNECT},        {NULL, false, STORE_RECONNECT},
        {"40001", false, STORE_RETRY},       {"40P01", false, STORE_RETRY},
        {"55P03", false, STORE_RETRY},       {"57014", false, STORE_RETRY},
        {"08006", false, STORE_RECONNECT},   {"57P01", false, STORE_RECONNECT},
        {"25006", false, STORE_RECONNECT},   {"22P05", false, STORE_POISON},
        {"22021", false, STORE_POISON},      {"54000", false, STORE_POISON},
        {"54001", false, STORE_POISON},      {"23502", false, STORE_POISON},
        {"23514", true, STORE_POISON},       {"23514", false, STORE_MAKE_MONTH},
        {"23503", true, STORE_REFUSED},      {"P0001", false, STORE_REFUSED},
        {"53100", false, STORE_STOP_INTAKE}, {"53300", false, STORE_STOP_INTAKE},
        {"58030", false, STORE_STOP_INTAKE}, {"XX001", false, STORE_STOP_INTAKE},
        {"42883", false, STORE_OUR_FAULT},   {"28P01", false, STORE_OUR_FAULT},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (store_action_for(rows[i].sqlstate, rows[i].names_constraint) != rows[i].action)
            fail_msg("row %zu: %s", i, rows[i].sqlstate ? rows[i].sqlstate : "NULL");
}

static void sqlstate_never_means_committed(void **state)
{
    (void)state;
    static const char symbols[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (size_t a = 0; a < 36; a++)
        for (size_t b = 0; b < 36; b++)
            for (size_t c = 0; c < 36; c += 5) {
                char sqlstate[6];
                snprintf(sqlstate, sizeof(sqlstate), "%c%c%c%c%c", symbols[a], symbols[b],
                         symbols[c], symbols[(a + c) % 36], symbols[(b + c) % 36]);
                assert_int_not_equal(store_action_for(sqlstate, true), STORE_COMMITTED);
            }
}

static void sqlstate_words_that_may_quote_a_row_are_not_shown(void **state)
{
    (void)state;
    static const struct {
        struct store_error error;
        bool is_shown;
    } rows[] = {
        {{"", "connection refused", false, NULL}, true},
        {{"42501", "permission denied", false, NULL}, true},
        {{"57P01", "terminating", false, NULL}, true},
        {{"28P01", "password authentication", false, NULL}, true},
        {{"F0000", "our own words", false, NULL}, true},
        {{"22P02", "invalid input: \"row\"", false, NULL}, false},
        {{"23514", "violates check", false, NULL}, false},
        {{"P0001", "a trigger's: row", false, NULL}, false},
        {{"42601", "syntax error at row", false, NULL}, false},
        {{"UE001", "a trigger's own", false, NULL}, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool is_shown = strcmp(store_error_words(&rows[i].error), rows[i].error.text) == 0;
        if (is_shown != rows[i].is_shown)
            fail_msg("%s %s", rows[i].error.sqlstate, rows[i].error.text);
    }
}

static void sqlstate_names_the_part_that_is_not_well(void **state)
{
    (void)state;
    static const struct {
        struct store_error error;
        const char *part;
    } rows[] = {
        {{"", "connection refused", false, NULL}, "database"},
        {{"57P01", "terminating", false, NULL}, "database"},
        {{"53100", "disk full", false, NULL}, "database (it is out of something)"},
        {{"42501", "permission denied", false, NULL}, "database (it refuses the gateway)"},
        {{"F0000", "our own words", false, "database (its own)"}, "database (its own)"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_string_equal(store_error_part(&rows[i].error), rows[i].part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sqlstate_asks_for_what_the_table_says),
        cmocka_unit_test(sqlstate_never_means_committed),
        cmocka_unit_test(sqlstate_names_the_part_that_is_not_well),
        cmocka_unit_test(sqlstate_words_that_may_quote_a_row_are_not_shown),
    };
    return cmocka_run_group_tests_name("sqlstate", tests, NULL, NULL);
}
