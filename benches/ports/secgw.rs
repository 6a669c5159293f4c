//! DPDK's own IPsec gateway as a contestant: `ipsec-secgw` of its examples, built from the source that Debian's `dpdk-doc` has, with
//! intel-ipsec-mb as its cipher.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::harness::Samples;
use super::lab::Lab;

const SOURCE: &str = "/usr/share/dpdk/examples/ipsec-secgw";
/// It asks each port for checksums of packets that come in, which a capture's driver does not offer, and does not read them.
const ASKS: (&str, &str) = (".offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM,", ".offloads = 0,");
/// Seconds that it runs, the first of them for the caches. It says each second how many packets it sent.
const SECONDS: usize = 6;
const SAYS: &str = "Total packets sent:";

/// The inner packets of the captures, the SA of the bed, and a way to nowhere. It wants an SA of the other direction, too.
const RULES: &str = "\
sp ipv4 out esp protect 4096 pri 1 dst 10.128.0.0/9 sport 0:65535 dport 0:65535
sp ipv4 in esp protect 4097 pri 1 src 10.128.0.0/9 sport 0:65535 dport 0:65535
sa out 4096 aead_algo aes-128-gcm aead_key 00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00 \
mode ipv4-tunnel src 10.77.0.100 dst 10.80.0.0 type cpu-crypto
sa in 4097 aead_algo aes-128-gcm aead_key 00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:01 \
mode ipv4-tunnel src 10.80.0.0 dst 10.77.0.100 type cpu-crypto
rt ipv4 dst 10.80.0.0/12 port 1
neigh port 1 02:00:00:00:00:77
";

pub struct Secgw {
    program: PathBuf,
    rules: PathBuf,
}

impl Secgw {
    /// Builds it; nothing where its source is not.
    pub fn build(lab: &Lab) -> Option<Secgw> {
        let (folder, rules) = (lab.folder().join("ipsec-secgw"), lab.folder().join("secgw.cfg"));
        let sources = std::fs::read_dir(SOURCE).ok()?;
        std::fs::create_dir(&folder).expect("a folder");
        for source in sources.flatten().filter(|entry| entry.path().is_file()) {
            let text = std::fs::read_to_string(source.path()).expect("a source");
            std::fs::write(folder.join(source.file_name()), text.replace(ASKS.0, ASKS.1)).expect("room for a source");
        }
        let made = Command::new("make").arg("--silent").current_dir(&folder).status().expect("make");
        assert!(made.success(), "{SOURCE} cannot be built");
        std::fs::write(&rules, RULES).expect("room for rules");
        Some(Secgw { program: folder.join("build/ipsec-secgw"), rules })
    }

    /// Nanoseconds of a packet from an endless capture to nowhere, on the CPU of the core.
    pub fn measure(&self, lab: &Lab, capture: &Path) -> Samples {
        let pages: &[&str] = if lab.eal.has_huge_pages() { &["--huge-unlink"] } else { &["--no-huge"] };
        let capture = format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display());
        // Its other threads are not on the core's CPU; each line as it is said, for their times count.
        let mut run = Command::new("taskset")
            .args(["-c", &format!("{},{}", lab.other_cpu, lab.cpu), "stdbuf", "-oL"])
            .arg(&self.program)
            .args(["-l", &lab.cpu.to_string(), "-m", "512", "--no-pci", "--no-telemetry", "--file-prefix=secgw"])
            .args(pages)
            .args(["--vdev", &capture, "--vdev", "net_null0,no-rx=1", "--vdev", "crypto_aesni_mb0", "--"])
            .args(["-p", "0x3", "-P", "-u", "0x2", "-l", "--rxoffload", "0", "--txoffload", "0", "-t", "1"])
            .args(["--config", "(0,0,LCORE),(1,0,LCORE)".replace("LCORE", &lab.cpu.to_string()).as_str(), "-f"])
            .arg(&self.rules)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Running)
            .expect("ipsec-secgw");
        let (mut last, mut times, mut words) = (None, Vec::new(), String::new());
        for line in BufReader::new(run.0.stdout.take().expect("a pipe")).lines().map_while(Result::ok) {
            let Some(sent) = line.trim().strip_prefix(SAYS).and_then(|sent| sent.trim().parse::<f64>().ok()) else {
                words = line;
                continue;
            };
            let (now, before) = (Instant::now(), last.replace((Instant::now(), sent)));
            times.extend(before.map(|(then, had)| (now - then).as_nanos() as f64 / (sent - had)));
            if times.len() > SECONDS {
                break;
            }
        }
        assert!(times.len() > 1 && times.iter().all(|ns| ns.is_finite()), "ipsec-secgw sent nothing: {words}");
        Samples::of(times.split_off(1))
    }
}

/// Ends with whoever waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
