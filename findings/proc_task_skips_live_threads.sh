#!/usr/bin/env bash
# Linux: a listing of /proc/PID/task leaves out live threads when other threads have ended meanwhile.
#
# Software: the running kernel (met on Linux 6.18); a C compiler.
# Expected: an entry that is neither added nor removed during a listing is returned once, as POSIX promises of readdir.
#           40 threads that live all the while are listed, whoever else ends.
# Seen:     60 threads made before them end between two reads of the listing, and most of the 40 are missing. No call
#           fails. The kernel remembers the last thread that it gave; when that has ended, it counts from the first
#           thread again, and passes one live thread by for each thread that has ended.
# Source:   Linux, fs/proc/base.c, first_tid().
#
# glibc's readdir asks for 32 KiB at a time, enough for a thousand threads; this program asks for 1 KiB, so that a
# hundred threads show it.
#
# Exits 0 if it is as described, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
command -v cc >/dev/null || { echo "SKIPPED: a C compiler is needed"; exit 77; }
[ -d /proc/self/task ] || { echo "SKIPPED: /proc is not mounted"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/list.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BRIEF = 60, LASTING = 40 };
struct entry { uint64_t inode; int64_t next; uint16_t size; uint8_t type; char name[]; };
static pthread_barrier_t all_run;
static pid_t lasting[LASTING];
static int end[2]; /* a pipe: its end of file ends the brief threads */

static void *brief(void *arg) {
    char byte;
    return read(end[0], &byte, 1) == 0 ? arg : NULL;
}
static void *last(void *number) {
    lasting[(intptr_t)number] = syscall(SYS_gettid);
    pthread_barrier_wait(&all_run);
    for (;;) pause();
}
static void end_brief(pthread_t *threads) {
    struct stat folder;
    close(end[1]);
    for (int i = 0; i < BRIEF; i++) pthread_join(threads[i], NULL);
    do usleep(1000), stat("/proc/self/task", &folder); /* until the kernel has let them go, too */
    while (folder.st_nlink > 2 + 1 + LASTING);
}
int main(int argc, char **argv) {
    pthread_t threads[BRIEF], thread;
    if (pipe(end)) return 1;
    pthread_barrier_init(&all_run, NULL, LASTING + 1);
    for (int i = 0; i < BRIEF; i++) if (pthread_create(&threads[i], NULL, brief, NULL)) return 1;
    for (intptr_t i = 0; i < LASTING; i++) if (pthread_create(&thread, NULL, last, (void *)i)) return 1;
    pthread_barrier_wait(&all_run);

    char buffer[1024] __attribute__((aligned(8)));
    int folder = open("/proc/self/task", O_RDONLY | O_DIRECTORY), listed = 0, must_end = argc > 1;
    for (long bytes; (bytes = syscall(SYS_getdents64, folder, buffer, sizeof buffer)) > 0;) {
        for (long at = 0; at < bytes; at += ((struct entry *)(buffer + at))->size)
            for (int i = 0; i < LASTING; i++)
                listed += atoi(((struct entry *)(buffer + at))->name) == lasting[i];
        if (must_end) end_brief(threads);
        must_end = 0;
    }
    printf("%d\n", listed);
    return 0;
}
C
cc -O1 -pthread -o "$work/list" "$work/list.c"
quiet=$("$work/list")
ending=$("$work/list" end)
echo "Linux $(uname -r): of 40 live threads, $quiet are listed while no thread ends, $ending while others end"
if [ "$quiet" -eq 40 ] && [ "$ending" -lt 40 ]; then echo "as described"; else echo "CHANGED"; exit 1; fi
