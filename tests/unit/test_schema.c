/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of schema's list of migrations: a mistake in sql/ is found before any database is
 * touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "schema/migration.h"
#include "schema/schema.h"

#include <string.h>

#define FILE_OF(name, text)          \
    {                                \
        name, text, sizeof(text) - 1 \
    }

static void schema_reads_migrations_in_any_order_and_passes_others_over(void **state)
{
    (void)state;
    static const struct embedded_file files[] = {
        FILE_OF("0002_b.up.sql", "two"),
        FILE_OF("audit_keys.sql", ""),
        FILE_OF("0001_a_b.down.sql", ""),
        FILE_OF("0002_b.down.sql", ""),
        FILE_OF("0001_a_b.up.sql", "abc"),
        FILE_OF("0003_c.sql", ""),
        {NULL, NULL, 0},
    };
    struct migrations migrations;
    struct oh_error err = {0};

    assert_int_equal(migrations_read(files, &migrations, &err), OH_OK);
    assert_int_equal(migrations.count, 2);
    assert_string_equal(migrations.items[0].name, "a_b");
    assert_string_equal(migrations.items[1].name, "b");
    assert_int_equal(migrations.items[1].version, 2);
    /* FIPS 180-2, appendix B.1. */
    assert_string_equal(migrations.items[0].checksum,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    migrations_free(&migrations);
}

static void expect_refused(const struct embedded_file *files, const char *words)
{
    struct migrations migrations;
    struct oh_error err = {0};
    assert_int_equal(migrations_read(files, &migrations, &err), OH_INVALID);
    assert_non_null(strstr(err.text, words));
    assert_null(migrations.items);
}

static void schema_refuses_a_gap_a_missing_half_and_a_version_twice(void **state)
{
    (void)state;
    static const struct embedded_file gap[] = {FILE_OF("0001_a.up.sql", ""),
                                               FILE_OF("0001_a.down.sql", ""),
                                               FILE_OF("0003_c.up.sql", ""),
                                               FILE_OF("0003_c.down.sql", ""),
                                               {NULL, NULL, 0}};
    static const struct embedded_file half[] = {FILE_OF("0001_a.up.sql", ""), {NULL, NULL, 0}};
    static const struct embedded_file twice[] = {
        FILE_OF("0001_a.up.sql", ""), FILE_OF("0001_b.down.sql", ""), {NULL, NULL, 0}};

    expect_refused(gap, "0002");
    expect_refused(half, "down file is missing");
    expect_refused(twice, "stands twice");
}

static void schema_finds_the_tables_that_a_migration_makes(void **state)
{
    (void)state;
    static const struct embedded_file up =
        FILE_OF("0001_a.up.sql", "CREATE TABLE one (\n  a integer);\n-- CREATE TABLE no (\n"
                                 "CREATE TABLE two_2 (b integer);\n EXECUTE 'CREATE TABLE %I'");
    const struct migration migration = {.version = 1, .up = &up};
    size_t at = 0;

    assert_true(slice_equals(migration_next_table(&migration, &at), SLICE_LITERAL("one")));
    assert_true(slice_equals(migration_next_table(&migration, &at), SLICE_LITERAL("two_2")));
    assert_null(migration_next_table(&migration, &at).data);
}

static void schema_of_this_binary_is_whole(void **state)
{
    (void)state;
    struct migrations migrations;
    struct oh_error err = {0};
    assert_int_equal(migrations_read(embedded_sql, &migrations, &err), OH_OK);
    assert_true(migrations.count >= 5);
    assert_int_equal(schema_version_wanted(), (int)migrations.count);
    migrations_free(&migrations);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schema_reads_migrations_in_any_order_and_passes_others_over),
        cmocka_unit_test(schema_refuses_a_gap_a_missing_half_and_a_version_twice),
        cmocka_unit_test(schema_finds_the_tables_that_a_migration_makes),
        cmocka_unit_test(schema_of_this_binary_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
