/* SPDX-License-Identifier: Apache-2.0 */
/* main() of a target without libFuzzer: each file of the directories that are named, once. */
#include "fuzz_support.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    long size = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    /* Of its very size, so that AddressSanitizer sees a byte too far. */
    uint8_t *bytes = size >= 0 ? malloc(size > 0 ? (size_t)size : 1) : NULL;
    demand(bytes && fseek(file, 0, SEEK_SET) == 0, path);
    demand(fread(bytes, 1, (size_t)size, file) == (size_t)size, path);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, (size_t)size);
    free(bytes);
}

static size_t replay_directory(const char *name)
{
    DIR *directory = opendir(name);
    const struct dirent *entry;
    size_t count = 0;
    while (directory && (entry = readdir(directory))) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", name, entry->d_name);
        replay_file(path);
        count++;
    }
    if (directory)
        closedir(directory);
    else
        demand(errno == ENOENT, name);
    return count;
}

int main(int argc, char **argv)
{
    size_t count = 0;
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        count += replay_directory(argv[i]);
    printf("%zu inputs\n", count);
    demand(count > 0, "nothing to replay");
    return 0;
}
