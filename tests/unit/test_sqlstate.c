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
        const char *sqlstate, *message;
        enum store_action action;
    } rows[] = {
        {"", "", STORE_RECONNECT},
        {NULL, NULL, STORE_RECONNECT},
        {"40001", "could not serialize access", STORE_RETRY},
        {"40P01", "deadlock detected", STORE_RETRY},
        {"55P03", "canceling statement due to lock timeout", STORE_RETRY},
        {"57014", "canceling statement due to statement timeout", STORE_RETRY},
        {"08006", "connection failure", STORE_RECONNECT},
        {"57P01", "terminating connection", STORE_RECONNECT},
        {"25006", "read-only transaction", STORE_RECONNECT},
        {"22P05", "unsupported Unicode escape sequence", STORE_POISON},
        {"22021", "invalid byte sequence", STORE_POISON},
        {"54000", "index row size", STORE_POISON},
        {"54001", "stack depth limit exceeded", STORE_POISON},
        {"23502", "null value", STORE_POISON},
        {"23514", "violates check constraint", STORE_POISON},
        {"23514", "no partition of relation \"campaign_events\" found for row", STORE_MAKE_MONTH},
        {"23503", "violates foreign key constraint", STORE_REFUSED},
        {"P0001", "no, says a trigger", STORE_REFUSED},
        {"53100", "could not extend file: No space left", STORE_STOP_INTAKE},
        {"53300", "too many connections", STORE_STOP_INTAKE},
        {"58030", "could not fsync", STORE_STOP_INTAKE},
        {"XX001", "invalid page", STORE_STOP_INTAKE},
        {"42883", "function does not exist", STORE_OUR_FAULT},
        {"28P01", "password authentication failed", STORE_OUR_FAULT},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (store_action_for(rows[i].sqlstate, rows[i].message) != rows[i].action)
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
                assert_int_not_equal(store_action_for(sqlstate, "text"), STORE_COMMITTED);
            }
}

static void sqlstate_words_that_may_quote_a_row_are_not_shown(void **state)
{
    (void)state;
    static const struct {
        struct store_error error;
        bool is_shown;
    } rows[] = {
        {{"", "connection refused"}, true},        {{"42501", "permission denied"}, true},
        {{"57P01", "terminating"}, true},          {{"28P01", "password authentication"}, true},
        {{"F0000", "our own words"}, true},        {{"22P02", "invalid input: \"row\""}, false},
        {{"23514", "violates check"}, false},      {{"P0001", "a trigger's: row"}, false},
        {{"42601", "syntax error at row"}, false}, {{"UE001", "a trigger's own"}, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool is_shown = strcmp(store_error_words(&rows[i].error), rows[i].error.text) == 0;
        if (is_shown != rows[i].is_shown)
            fail_msg("%s %s", rows[i].error.sqlstate, rows[i].error.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sqlstate_asks_for_what_the_table_says),
        cmocka_unit_test(sqlstate_never_means_committed),
        cmocka_unit_test(sqlstate_words_that_may_quote_a_row_are_not_shown),
    };
    return cmocka_run_group_tests_name("sqlstate", tests, NULL, NULL);
}
