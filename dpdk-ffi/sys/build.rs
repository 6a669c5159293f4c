//! Finds libdpdk, compiles the shim and writes the bindings.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const INSTALL: &str = "apt-get install libdpdk-dev dpdk libclang-dev clang pkg-config";

/// The libraries whose symbols are bound; drivers are plugins that EAL loads itself.
const LIBRARIES: &[&str] = &["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring"];

const FUNCTIONS: &str = "px_.*|rte_eal_(init|cleanup|hotplug_add|hotplug_remove|alarm_set)|rte_dev_remove\
|rte_thread_(register|unregister)|rte_lcore_id_.*|rte_log_set_(global_level|level|level_pattern)|rte_strerror|rte_version\
|rte_pktmbuf_(pool_create_by_ops|free_bulk)|rte_mempool_(avail_count|in_use_count|free|lookup)\
|rte_ring_(create|free|lookup)\
|rte_eth_dev_(configure|start|stop|close|info_get|set_mtu|get_mtu|get_port_by_name|default_mac_addr_set|count_avail|adjust_nb_rx_tx_desc|set_link_up|socket_id|is_valid_port)\
|rte_eth_(rx|tx)_queue_setup|rte_eth_link_get_nowait|rte_eth_macaddr_get|rte_eth_stats_(get|reset)\
|rte_eth_promiscuous_(enable|disable|get)|rte_eth_allmulticast_enable|rte_eth_xstats_(get|get_names)";

const VARIABLES: &str = "rte_eth_fp_ops|RTE_MAX_ETHPORTS|RTE_MAX_LCORE|RTE_PKTMBUF_HEADROOM|RTE_MEMPOOL_CACHE_MAX_SIZE\
|RTE_MBUF_DEFAULT_(DATAROOM|BUF_SIZE)|RTE_LOG_.*|RING_F_.*|RTE_ETH_RSS_.*|RTE_ETH_MQ_RX_.*|RTE_ETH_LINK_.*|RTE_RING_NAMESIZE|RTE_MEMPOOL_NAMESIZE";

const TYPES: &str = "rte_mbuf|rte_mempool|rte_ring|rte_eth_(conf|dev_info|link|stats|xstat|xstat_name|fp_ops|rxconf|txconf)|rte_ether_addr";

fn main() {
    for file in ["build.rs", "wrapper.h", "shim.h", "shim.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for name in ["LIBCLANG_PATH", "PKG_CONFIG_PATH", "PKG_CONFIG"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(why) = build() {
        println!("cargo::error={}", why.replace('\n', " "));
    }
}

fn build() -> Result<(), String> {
    let flags = find_dpdk()?;
    choose_libclang();
    compile_shim(&flags);
    write_bindings(&flags)
}

/// Emits the link lines and returns the C flags, with `-include rte_config.h` and `-march`, which
/// the pkg-config crate leaves out.
fn find_dpdk() -> Result<Vec<String>, String> {
    let missing = |detail: String| {
        let detail = detail.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing");
        format!("DPDK 22.11 or newer was not found. Install it:  {INSTALL}  (pkg-config said: {detail})")
    };
    let library = pkg_config::Config::new()
        .atleast_version("22.11")
        .cargo_metadata(false)
        .probe("libdpdk")
        .map_err(|e| missing(e.to_string()))?;
    for path in &library.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for name in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    println!("cargo::metadata=version={}", library.version);

    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(program).args(["--cflags", "libdpdk"]).output().map_err(|e| missing(e.to_string()))?;
    if !output.status.success() {
        return Err(missing(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// With several LLVM versions installed, libclang of one and the headers of another do not fit
/// ("emmintrin.h" errors). Unless the user chose, take the newest LLVM that has both.
fn choose_libclang() {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return;
    }
    let mut best: Option<(u32, PathBuf)> = None;
    for entry in std::fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(version) = name.strip_prefix("llvm-").and_then(|v| v.parse::<u32>().ok()) else {
            continue;
        };
        let root = entry.path();
        if has_libclang(&root.join("lib"))
            && has_headers(&root.join("lib/clang"))
            && best.as_ref().is_none_or(|(v, _)| version > *v)
        {
            best = Some((version, root));
        }
    }
    let Some((_, root)) = best else { return };
    // SAFETY: a build script has one thread here, so nobody reads the environment meanwhile.
    unsafe {
        env::set_var("LIBCLANG_PATH", root.join("lib"));
        let clang = root.join("bin/clang");
        if env::var_os("CLANG_PATH").is_none() && clang.exists() {
            env::set_var("CLANG_PATH", clang);
        }
    }
}

fn has_libclang(folder: &Path) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with("libclang.so") || name.starts_with("libclang-") && name.contains(".so")
    })
}

fn has_headers(folder: &Path) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|v| v.path().join("include/emmintrin.h").exists())
}

fn compile_shim(flags: &[String]) {
    let mut shim = cc::Build::new();
    shim.file("shim.c").opt_level(3).warnings(true);
    // DPDK's own headers are not warning-free under -Wall -Wextra.
    shim.flag("-Wno-unused-parameter");
    for flag in flags {
        shim.flag(flag);
    }
    shim.compile("phalanx_dpdk_shim");
}

fn write_bindings(flags: &[String]) -> Result<(), String> {
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?).join("bindings.rs");
    let builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(flags)
        .allowlist_function(FUNCTIONS)
        .allowlist_var(VARIABLES)
        .allowlist_type(TYPES)
        .opaque_type("rte_arp_.*|rte_l2tpv2_.*|rte_gtp_psc_.*")
        .derive_default(true)
        .generate_comments(false)
        .layout_tests(false)
        .prepend_enum_name(false);
    let unreadable = |why: &str| {
        format!(
            "bindgen could not read DPDK's headers: {why}. Is a libclang with its headers installed?  {INSTALL}  \
             (or set LIBCLANG_PATH)"
        )
    };
    // Without a libclang bindgen panics instead of returning an error.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.generate()))
        .map_err(|_| unreadable("no libclang was found"))?
        .map_err(|error| unreadable(&error.to_string()))?
        .write_to_file(&out)
        .map_err(|e| format!("cannot write {}: {e}", out.display()))
}
