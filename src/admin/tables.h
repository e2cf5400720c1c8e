/* SPDX-License-Identifier: Apache-2.0 */
/* The sizes of the greatest tables, read over admin's own PostgreSQL connection and kept for a few
 * seconds. */
#ifndef ADMIN_TABLES_H
#define ADMIN_TABLES_H

#include "config/config.h"

#include <jansson.h>

struct tables;

/* Asks database.url for the tables of database.schema; config must outlive it. Does not connect.
 * NULL when memory is gone. */
struct tables *tables_new(const struct config *config);
void tables_free(struct tables *tables);

/* A new reference to [{"name","bytes","rows"}, …], the five greatest, partitions summed up in their
 * parent, `rows` the planner's estimate or null. NULL: cannot be had now (logged). Answers from
 * memory for 5 seconds, failures too; else waits at most about 3 seconds. Thread: any. */
json_t *tables_read(struct tables *tables);

#endif
