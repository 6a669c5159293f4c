#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <rte_errno.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#include "shim.h"

int px_errno(void) { return rte_errno; }

struct rte_mbuf *px_pktmbuf_alloc(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }

int px_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void px_pktmbuf_free(struct rte_mbuf *mbuf) { rte_pktmbuf_free(mbuf); }

unsigned int px_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf *const *mbufs, unsigned int count)
{
	return rte_ring_enqueue_burst(ring, (void *const *)mbufs, count, NULL);
}

unsigned int px_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_ring_dequeue_burst(ring, (void **)mbufs, count, NULL);
}

unsigned int px_ring_count(const struct rte_ring *ring) { return rte_ring_count(ring); }

static struct {
	pthread_mutex_t lock;
	size_t length;
	char text[8192];
} captured = { .lock = PTHREAD_MUTEX_INITIALIZER };

static ssize_t capture_write(void *cookie, const char *text, size_t size)
{
	const size_t room = sizeof(captured.text);
	const size_t all = size;
	(void)cookie;
	if (size > room) {
		text += size - room;
		size = room;
	}
	pthread_mutex_lock(&captured.lock);
	if (captured.length + size > room) {
		size_t out = captured.length + size - room;
		memmove(captured.text, captured.text + out, captured.length - out);
		captured.length -= out;
	}
	memcpy(captured.text + captured.length, text, size);
	captured.length += size;
	pthread_mutex_unlock(&captured.lock);
	return (ssize_t)all;
}

int px_log_capture(void)
{
	static FILE *stream;
	const cookie_io_functions_t io = { .write = capture_write };
	if (stream != NULL)
		return 0;
	stream = fopencookie(NULL, "w", io);
	if (stream == NULL)
		return -1;
	/* DPDK flushes after every message; without a buffer of its own stdio allocates nothing later. */
	setvbuf(stream, NULL, _IONBF, 0);
	return rte_openlog_stream(stream);
}

size_t px_log_take(char *out, size_t size)
{
	pthread_mutex_lock(&captured.lock);
	if (size > captured.length)
		size = captured.length;
	memcpy(out, captured.text + captured.length - size, size);
	captured.length = 0;
	pthread_mutex_unlock(&captured.lock);
	return size;
}
