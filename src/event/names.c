/* SPDX-License-Identifier: Apache-2.0 */
/* The contract's words for types, channels and grades (oncehook/event.h). */
#include "oncehook/event.h"

const char *oh_event_type_name(enum oh_event_type type)
{
    static const char *const words[] = {
#define X(name, word) [OH_EVENT_##name] = word,
        OH_EVENT_TYPES(X)
#undef X
    };
    return type < OH_EVENT_TYPE_COUNT ? words[type] : words[OH_EVENT_OTHER];
}

const char *oh_channel_name(enum oh_channel channel)
{
    switch (channel) {
    case OH_CHANNEL_EMAIL:
        return "email";
    case OH_CHANNEL_LINKEDIN:
        return "linkedin";
    case OH_CHANNEL_VIDEO:
        return "video";
    case OH_CHANNEL_SMS:
        return "sms";
    case OH_CHANNEL_PHONE:
        return "phone";
    case OH_CHANNEL_NONE:
        break;
    }
    return NULL;
}

const char *oh_key_grade_name(enum oh_key_grade grade)
{
    switch (grade) {
    case OH_GRADE_ID:
        return "id";
    case OH_GRADE_COMPOSITE:
        return "composite";
    case OH_GRADE_HASH:
        break;
    }
    return "hash";
}
