/* Swaps whatever stands in some directories with links to sentinels, over and over, until it is told to end: what root
   does by name in between meets the link. Arguments: how long it waits while a link stands (microseconds; 0 to sleep
   until something is made, and swap that), a file with the sentinels, a file with the directories, one a line. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST 512
/* What may come, though it is not there now. */
static const char *awaited[] = {"camcops.socket", "export", "downloads", "matplotlib", "camcops", "celerybeat-schedule",
    ".camcops.camcops-provision", ".export.camcops-provision", ".downloads.camcops-provision",
    ".matplotlib.camcops-provision", "camcops_master_export_recipient.lock", "server.log"};
static volatile sig_atomic_t done;
static void end(int signal) { (void)signal; done = 1; }

static int lines(const char *path, char *into[]) {
    FILE *file = fopen(path, "r");
    char line[4096];
    int count = 0;
    while (file && count < MOST && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        into[count++] = strdup(line);
    }
    return count;
}

/* What has just been made may be named once more by who made it: then the link stays for long. */
static int is_new(int at, const char *name) {
    static ino_t seen[4096];
    static unsigned count;
    struct stat now;
    if (fstatat(at, name, &now, AT_SYMLINK_NOFOLLOW) != 0 || S_ISLNK(now.st_mode)) return 0;
    for (unsigned one = 0; one < count && one < 4096; one++)
        if (seen[one] == now.st_ino) return 0;
    seen[count++ % 4096] = now.st_ino;
    return 1;
}

static void swap(int at, const char *name, const char *sentinel, unsigned pause) {
    char aside[300];
    snprintf(aside, sizeof aside, ".aside-%d-%.200s", getpid(), name);
    int held = renameat(at, name, at, aside) == 0;
    int linked = symlinkat(sentinel, at, name) == 0;
    if (linked && held && is_new(at, aside)) usleep(20000);
    else if (linked && pause) usleep(pause);
    if (linked) {
        struct stat now;
        if (fstatat(at, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(now.st_mode)) unlinkat(at, name, 0);
    }
    if (held) renameat(at, aside, at, name);
}

/* Woken by the kernel, it comes between two steps of who makes something. */
static void await(int all, char *places[], int many, char *sentinels[]) {
    int events = inotify_init1(IN_CLOEXEC), watched[MOST], next = 0;
    for (int place = 0; place < all; place++)
        watched[place] = inotify_add_watch(events, places[place], IN_CREATE | IN_ONLYDIR);
    char buffer[65536];
    while (!done) {
        long size = read(events, buffer, sizeof buffer);
        for (long at = 0; at < size;) {
            struct inotify_event *event = (struct inotify_event *)(buffer + at);
            at += (long)(sizeof *event + event->len);
            if (!event->len || !strncmp(event->name, ".aside-", 7)) continue;
            for (int place = 0; place < all; place++) {
                if (watched[place] != event->wd) continue;
                int directory = open(places[place], O_DIRECTORY | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
                struct stat now;
                if (directory >= 0 && fstatat(directory, event->name, &now, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISLNK(now.st_mode))
                    swap(directory, event->name, sentinels[next++ % many], 0);
                if (directory >= 0) close(directory);
            }
        }
    }
}

int main(int count, char *words[]) {
    static char *sentinels[MOST], *places[MOST];
    if (count != 4) return 64;
    unsigned pause = (unsigned)atoi(words[1]);
    int many = lines(words[2], sentinels), all = lines(words[3], places), next = getpid();
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, 0);
    if (!pause) {
        await(all, places, many, sentinels);
        return 0;
    }
    while (!done) {
        for (int place = 0; place < all && !done; place++) {
            int at = open(places[place], O_DIRECTORY | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
            if (at < 0) continue;
            char *names[MOST];
            int found = 0;
            DIR *directory = fdopendir(dup(at));
            struct dirent *entry;
            while (directory && found < 64 && (entry = readdir(directory)))
                if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && strncmp(entry->d_name, ".aside-", 7))
                    names[found++] = strdup(entry->d_name);
            if (directory) closedir(directory);
            for (int name = 0; name < found; name++) {
                swap(at, names[name], sentinels[next++ % many], pause);
                free(names[name]);
            }
            for (unsigned name = 0; name < sizeof awaited / sizeof *awaited; name++)
                swap(at, awaited[name], sentinels[next++ % many], pause);
            close(at);
        }
    }
    return 0;
}
