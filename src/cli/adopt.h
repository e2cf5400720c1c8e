/* SPDX-License-Identifier: Apache-2.0 */
/* `oncehook migrate adopt`, which has options of its own. */
#ifndef CLI_ADOPT_H
#define CLI_ADOPT_H

/* argv[0] is "adopt". Returns the exit code. Thread: the only one. */
int cli_adopt(int argc, char **argv);

#endif
