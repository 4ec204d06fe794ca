/* A yardstick: the least that a server can do that writes each message to each client.
 *
 * It accepts WebSocket clients (RFC 6455) and writes each text or binary frame that it gets to all
 * who asked for the same path, the sender too: one write a client and frame. With "join", the frames
 * of one read go to each client in one write. It stores nothing, checks nothing but the form of a
 * frame, and cuts a client that does not take what is written: what remains is what the kernel
 * costs.
 *
 *   cc -O2 -o yardstick scripts/yardstick.c && ./yardstick PORT [join]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_CLIENTS = 20000, BUFFER = 64 * 1024, EVENTS = 256, HASHES = 16384 };

/* All who asked for a path; `next`: another room whose path has the same hash. */
struct room {
    char *path;
    struct client *first;
    struct room *next;
};

/* `data`: what was received and is not taken apart yet. `room`: once it is open; it is in the list
 * of that room, where `here` is what points to it. */
struct client {
    int fd;
    struct room *room;
    struct client *next, **here;
    size_t length;
    unsigned char *data;
};

static struct client clients[MOST_CLIENTS];
static struct room *rooms[HASHES];
static int joins;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* SHA-1 (RFC 3174), of a message shorter than 119 bytes. */
static uint32_t turn(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

static void sha1_block(uint32_t state[5], const unsigned char block[64]) {
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = turn(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                     : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                     : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                              : (b ^ c ^ d) + 0xca62c1d6;
        uint32_t next = turn(a, 5) + f + e + w[i];
        e = d, d = c, c = turn(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static void sha1(const char *text, unsigned char digest[20]) {
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    unsigned char padded[128] = {0};
    size_t length = strlen(text), size = length < 56 ? 64 : 128;
    memcpy(padded, text, length);
    padded[length] = 0x80;
    padded[size - 2] = length * 8 >> 8;
    padded[size - 1] = length * 8 & 0xff;
    for (size_t at = 0; at < size; at += 64) sha1_block(state, padded + at);
    for (int i = 0; i < 20; i++) digest[i] = state[i / 4] >> (24 - 8 * (i % 4));
}

static void base64(const unsigned char *data, int length, char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < length; i += 3) {
        uint32_t bits = data[i] << 16;
        if (i + 1 < length) bits |= data[i + 1] << 8;
        if (i + 2 < length) bits |= data[i + 2];
        *text++ = digits[bits >> 18];
        *text++ = digits[bits >> 12 & 63];
        *text++ = i + 1 < length ? digits[bits >> 6 & 63] : '=';
        *text++ = i + 2 < length ? digits[bits & 63] : '=';
    }
    *text = 0;
}

static void enter(struct client *client, const char *path, size_t length) {
    uint32_t hash = 5381; /* djb2 */
    for (size_t i = 0; i < length; i++) hash = hash * 33 ^ (unsigned char)path[i];
    struct room **room = &rooms[hash % HASHES];
    while (*room && (strlen((*room)->path) != length || memcmp((*room)->path, path, length)))
        room = &(*room)->next;
    if (!*room) {
        *room = calloc(1, sizeof **room);
        (*room)->path = strndup(path, length);
    }
    client->room = *room;
    client->next = (*room)->first;
    client->here = &(*room)->first;
    if (client->next) client->next->here = &client->next;
    (*room)->first = client;
}

static void cut(struct client *client) {
    if (client->room) {
        *client->here = client->next;
        if (client->next) client->next->here = client->here;
    }
    close(client->fd);
    free(client->data);
    memset(client, 0, sizeof *client);
}

/* Finds a header of the request; copies its value. */
static int header(const char *head, const char *name, char *value, size_t size) {
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        size_t length = strlen(name);
        if (strncasecmp(line + 2, name, length) || line[2 + length] != ':') continue;
        const char *from = line + 3 + length + strspn(line + 3 + length, " \t");
        size_t long_ = strcspn(from, "\r ,");
        if (long_ >= size) return 0;
        memcpy(value, from, long_);
        value[long_] = 0;
        return 1;
    }
    return 0;
}

/* Answers a request that is whole (RFC 6455 section 4.2.2); returns how long it was. */
static size_t shake_hands(struct client *client) {
    char *head = (char *)client->data, key[100], offered[100], answer[512];
    char *end = memmem(head, client->length, "\r\n\r\n", 4);
    if (!end) return 0;
    end[2] = 0;
    if (!header(head, "Sec-WebSocket-Key", key, 61)) return 0;
    unsigned char digest[20];
    char accepted[32];
    strcat(key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    sha1(key, digest);
    base64(digest, 20, accepted);
    int offers = header(head, "Sec-WebSocket-Protocol", offered, sizeof offered);
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s%s%s\r\n",
                          accepted, offers ? "Sec-WebSocket-Protocol: " : "", offers ? offered : "",
                          offers ? "\r\n" : "");
    if (write(client->fd, answer, length) != length) return 0;
    const char *path = head + strlen("GET ");
    enter(client, path, strcspn(path, " "));
    return end + 4 - head;
}

static void write_to_room(struct room *room, const unsigned char *data, size_t length) {
    for (struct client *each = room->first, *next; each; each = next) {
        next = each->next;
        if (write(each->fd, data, length) != (ssize_t)length) cut(each);
    }
}

/* Puts the frame at `data`, as a server sends it, to `out`. Returns its length, 0 if it is not
 * whole; *size: what it took up there. */
static size_t take_frame(unsigned char *data, size_t length, unsigned char *out, size_t *size) {
    if (length < 6) return 0;
    size_t payload = data[1] & 0x7f, at = 2;
    if (payload == 127) exit(2); /* no load of ours sends such */
    if (payload == 126) payload = data[2] << 8 | data[3], at = 4;
    const unsigned char *mask = data + at;
    at += 4;
    if (length < at + payload) return 0;
    int opcode = data[0] & 0x0f;
    *size = 0;
    if (opcode == 1 || opcode == 2) {
        out[0] = data[0], out[1] = data[1] & 0x7f;
        if (payload >= 126) out[2] = data[2], out[3] = data[3];
        *size = at - 4 + payload;
        for (size_t i = 0; i < payload; i++) out[at - 4 + i] = data[at + i] ^ mask[i & 3];
    }
    return at + payload;
}

static void receive(struct client *client) {
    static unsigned char out[BUFFER];
    ssize_t got = read(client->fd, client->data + client->length, BUFFER - client->length);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) cut(client);
        return;
    }
    client->length += got;
    size_t at = 0, gathered = 0, taken, size;
    if (!client->room && !(at = shake_hands(client))) return;
    while ((taken = take_frame(client->data + at, client->length - at, out + gathered, &size))) {
        at += taken;
        gathered += size;
        if (!joins && gathered) write_to_room(client->room, out, gathered), gathered = 0;
        if (!client->room) return; /* it did not take its own */
    }
    if (gathered) write_to_room(client->room, out, gathered);
    if (!client->room) return;
    memmove(client->data, client->data + at, client->length - at);
    client->length -= at;
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    socklen_t size = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 2048)) fail("listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("Listening on ws://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: yardstick PORT [join]\n"), 2;
    joins = argc > 2 && !strcmp(argv[2], "join");
    signal(SIGPIPE, SIG_IGN);
    int listening = listen_on(atoi(argv[1])), poll = epoll_create1(0), one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listening}, events[EVENTS];
    epoll_ctl(poll, EPOLL_CTL_ADD, listening, &event);
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd != listening) {
                struct client *client = &clients[events[i].data.fd];
                if (client->data) receive(client);
                continue;
            }
            int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            if (fd >= MOST_CLIENTS) {
                close(fd);
                continue;
            }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            clients[fd] = (struct client){.fd = fd, .data = malloc(BUFFER)};
            event.data.fd = fd;
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
