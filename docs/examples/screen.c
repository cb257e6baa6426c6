/* Sends one film to an EdgeCXR node on this machine and prints its JSON answer.
 *
 *   cc -Wall -Werror -o screen screen.c
 *   ./screen 127.0.0.1:8080 film.dcm          over TCP
 *   ./screen /run/edgecxr/api.sock film.dcm  over a Unix socket (the address has a slash)
 *
 * A password is taken from EDGECXR_PASSWORD. Exit code: 0 decided, 1 refused, 2 misuse, 3 no result (waiting, or an
 * error): a refusal is not a negative, and neither is an error.
 */
#define _GNU_SOURCE /* strcasestr */
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { DECIDED = 0, REFUSED = 1, MISUSE = 2, NO_RESULT = 3, TIMEOUT_S = 90 };

static void stop(int code, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fputs("screen: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(code);
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        stop(MISUSE, "the path %s is too long for a Unix socket", path);
    strcpy(address.sun_path, path);
    int node = socket(AF_UNIX, SOCK_STREAM, 0);
    if (node < 0 || connect(node, (struct sockaddr *)&address, sizeof address) != 0)
        stop(NO_RESULT, "cannot reach %s: %s", path, strerror(errno));
    return node;
}

static int connect_tcp(const char *where)
{
    char host[256];
    const char *colon = strrchr(where, ':');
    if (colon == NULL || (size_t)(colon - where) >= sizeof host)
        stop(MISUSE, "%s is no HOST:PORT and no path of a socket", where);
    memcpy(host, where, (size_t)(colon - where));
    host[colon - where] = '\0';
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int problem = getaddrinfo(host, colon + 1, &wanted, &found);
    if (problem != 0)
        stop(NO_RESULT, "cannot find %s: %s", where, gai_strerror(problem));
    int node = -1;
    for (struct addrinfo *one = found; one != NULL && node < 0; one = one->ai_next) {
        node = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (node >= 0 && connect(node, one->ai_addr, one->ai_addrlen) != 0) {
            close(node);
            node = -1;
        }
    }
    freeaddrinfo(found);
    if (node < 0)
        stop(NO_RESULT, "cannot reach %s: %s", where, strerror(errno));
    return node;
}

/* All of it, or an end of the program. A node that refuses before it has read everything answers and closes: then its
 * answer is what counts, so a write that fails is no error by itself. */
static int send_all(int node, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(node, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return 0;
        data += sent;
        size -= (size_t)sent;
    }
    return 1;
}

static void send_film(int node, const char *path)
{
    static char piece[1 << 16];
    struct stat about;
    FILE *film = fopen(path, "rb");
    if (film == NULL || fstat(fileno(film), &about) != 0 || !S_ISREG(about.st_mode))
        stop(MISUSE, "cannot read %s", path);
    const char *password = getenv("EDGECXR_PASSWORD");
    int size = snprintf(piece, sizeof piece,
                        "POST /v1/screen HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                        "Content-Type: application/octet-stream\r\nContent-Length: %lld\r\n%s%s%s\r\n",
                        (long long)about.st_size, password ? "Authorization: Bearer " : "", password ? password : "",
                        password ? "\r\n" : "");
    if (size < 0 || (size_t)size >= sizeof piece)
        stop(MISUSE, "the password is too long");
    size_t got = (size_t)size;
    while (got > 0 && send_all(node, piece, got))
        got = fread(piece, 1, sizeof piece, film);
    fclose(film);
}

/* The whole answer, as text that ends with a zero. The node closes the connection after it. */
static char *receive(int node)
{
    size_t size = 0, room = 1 << 16;
    char *text = malloc(room);
    for (;;) {
        if (text == NULL)
            stop(NO_RESULT, "no memory");
        ssize_t got = recv(node, text + size, room - size - 1, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != ECONNRESET)
            stop(NO_RESULT, "no answer: %s", strerror(errno));
        if (got <= 0)
            break;
        size += (size_t)got;
        if (size + 1 == room)
            text = realloc(text, room *= 2);
    }
    text[size] = '\0';
    return text;
}

int main(int count, char **arguments)
{
    if (count != 3)
        stop(MISUSE, "usage: %s HOST:PORT|SOCKET FILM", arguments[0]);
    int node = strchr(arguments[1], '/') ? connect_unix(arguments[1]) : connect_tcp(arguments[1]);
    struct timeval patience = {.tv_sec = TIMEOUT_S};
    setsockopt(node, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(node, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    send_film(node, arguments[2]);
    char *answer = receive(node);
    close(node);

    int status = 0;
    char *body = strstr(answer, "\r\n\r\n");
    if (sscanf(answer, "HTTP/1.%*d %d", &status) != 1 || body == NULL)
        stop(NO_RESULT, "the answer is cut short, or is not HTTP");
    char *length = strcasestr(answer, "\r\ncontent-length:");
    if (length == NULL || length > body || strtoull(length + 17, NULL, 10) != strlen(body + 4))
        stop(NO_RESULT, "the answer is cut short");
    puts(body + 4);
    int refused = strstr(body, "\"status\":\"refused\"") != NULL;
    free(answer);
    return status != 200 ? NO_RESULT : refused ? REFUSED : DECIDED;
}
