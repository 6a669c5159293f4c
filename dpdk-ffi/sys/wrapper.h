/* What bindgen reads. Everything dpdk-ffi calls is exported by libdpdk or by shim.h. */
#include <rte_alarm.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <rte_lcore.h>
#include <rte_dev.h>
#include <rte_version.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_ethdev.h>
#include "shim.h"
