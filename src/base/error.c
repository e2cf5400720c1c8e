/* SPDX-License-Identifier: Apache-2.0 */
/* Filling struct oh_error: text at the site, a status to return. */
#include "oncehook/types.h"

#include <stdarg.h>
#include <stdio.h>

enum oh_status oh_fail(struct oh_error *err, enum oh_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof(err->text), format, args);
        va_end(args);
    }
    return status;
}
