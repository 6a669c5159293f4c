/* DPDK's static inline functions that are not on the rx/tx path, as real symbols,
 * and the capture of EAL's log (a FILE * is not a thing Rust can make). */
#ifndef PHALANX_DPDK_SHIM_H
#define PHALANX_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;
struct rte_ring;

int px_errno(void);

struct rte_mbuf *px_pktmbuf_alloc(struct rte_mempool *pool);
int px_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void px_pktmbuf_free(struct rte_mbuf *mbuf);

unsigned int px_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf *const *mbufs, unsigned int count);
unsigned int px_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int count);
unsigned int px_ring_count(const struct rte_ring *ring);

/* From now on EAL's log goes to a fixed buffer (oldest bytes fall out). 0, or -1. */
int px_log_capture(void);
/* Moves what was captured to `out`; the number of bytes (no terminating zero). */
size_t px_log_take(char *out, size_t size);

#endif
