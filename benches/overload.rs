//! What a cluster does when too much is asked of it: how much of its peak is left, how long those wait that
//! are served, what the others are told, and how soon all is as before. Three pods, a real nginx in front,
//! and this process as the crowd, all on one machine.
//!
//! `cargo bench --bench overload [-- SECONDS]`, with nothing else running.

use comfy_table::{Table, presets};
use serde_json::Value;
use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// As many clients as are served well.
const CLIENTS: usize = 256;
const CROWD: usize = 10 * CLIENTS;
/// Of each kind of slow client.
const SLOW_EACH: usize = 500;
const PORT: u16 = 28_700;
const NGINX: u16 = PORT - 100;
const PODS: u16 = 3;
const SECONDS: u64 = 8;
/// Loads before the first that counts.
const WARM_UPS: usize = 3;
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// What one client leaves unread.
const UNREAD: usize = 8;
/// Between two bytes of a slow client.
const TRICKLE: Duration = Duration::from_secs(1);
/// The crowd is gone for so long when recovery is measured.
const RECOVERY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(SECONDS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(seconds))
}

async fn measure(seconds: u64) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let cluster = Cluster::start(dir.path())?;
    cluster.wait_ready().await?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "load",
        "a second",
        "of alone",
        "all answered",
        "p50 ms",
        "p99 ms",
        "shed",
        "errors",
        "crowd: 200",
        "429, 503",
        "other",
        "health max ms",
        "pod MiB",
    ]);
    let alone = |when: &'static str| (format!("{CLIENTS} buyers {when}"), CLIENTS, false, None);
    // A young store is quicker: its tables are all in memory still.
    for n in 0..WARM_UPS {
        eprintln!("warm-up {} of {WARM_UPS}, {seconds} s ...", n + 1);
        buy(CLIENTS, seconds, false).await?;
    }
    let mut peak = 0.0;
    for (load, buyers, hot, mob) in [
        alone("alone"),
        (format!("{CROWD} buyers"), CROWD, false, None),
        alone("2 s after"),
        (format!("{CROWD} buyers, one item"), CROWD, true, None),
        alone("2 s after"),
        (format!("{CLIENTS} buyers, {} slow clients", 3 * SLOW_EACH), CLIENTS, false, Some(Mob::Slow)),
        alone("2 s after"),
        (
            format!("{CLIENTS} buyers, {} that ask without pause", CROWD - CLIENTS),
            CLIENTS,
            false,
            Some(Mob::Flood),
        ),
        alone("2 s after"),
    ] {
        eprintln!("{load} for {seconds} s ...");
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::new(Told::default());
        let mut mob_of = JoinSet::new();
        match mob {
            Some(Mob::Slow) => slow(&mut mob_of, &over),
            Some(Mob::Flood) => flood(&mut mob_of, &over, &told),
            None => {}
        }
        let probe = tokio::spawn(probe(over.clone()));
        let bought = buy(buyers, seconds, hot).await?;
        over.store(true, Ordering::Relaxed);
        let health = probe.await?;
        mob_of.shutdown().await;
        let rate = bought["committed_per_second"].as_f64().unwrap_or(0.0);
        let (mut shed, mut errors) = (0, 0);
        for (code, count) in bought["errors"].as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap_or(0);
            if code == "overloaded" || code == "unavailable" { shed += count } else { errors += count }
        }
        let [well, put_off, other] =
            [&told.well, &told.put_off, &told.other].map(|n| n.load(Ordering::Relaxed));
        let answered = rate + well as f64 / seconds as f64;
        // What the crowd is compared with is the last that the buyers had for themselves.
        let is_alone = buyers == CLIENTS && mob.is_none();
        let of_peak = if peak > 0.0 { format!("{:.2}", rate / peak) } else { String::new() };
        if is_alone {
            peak = rate;
        }
        table.add_row([
            load,
            format!("{rate:.0}"),
            of_peak,
            format!("{answered:.0}"),
            bought["latency_ms"]["p50"].to_string(),
            bought["latency_ms"]["p99"].to_string(),
            shed.to_string(),
            errors.to_string(),
            well.to_string(),
            put_off.to_string(),
            other.to_string(),
            format!("{:.0}", health.as_secs_f64() * 1e3),
            cluster.memory_mib().to_string(),
        ]);
        sleep(RECOVERY).await;
    }
    println!(
        "{table}\n\"of alone\": of the rate of the nearest row above with {CLIENTS} buyers and nobody else\n\
         crowd: what it was told; health: the slowest of all pods' /healthz, asked every {PROBE_EVERY:?}"
    );
    Ok(())
}

#[derive(Clone, Copy)]
enum Mob {
    Slow,
    Flood,
}

/// What the crowd beside the buyers was told.
#[derive(Default)]
struct Told {
    well: AtomicU64,
    put_off: AtomicU64,
    other: AtomicU64,
}

/// Three pods and nginx; ended with this process.
struct Cluster {
    up: Child,
    pids: Vec<std::path::PathBuf>,
}

impl Cluster {
    fn start(dir: &std::path::Path) -> Result<Self, Failed> {
        let data = dir.join("data");
        let up = Command::new(env!("CARGO_BIN_EXE_kassa"))
            .args(["up", "--http-port", &PORT.to_string(), "--nginx", &NGINX.to_string()])
            .arg("--data")
            .arg(&data)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { up, pids: (0..PODS).map(|pod| data.join(format!("pod-{pod}/pid"))).collect() })
    }

    async fn wait_ready(&self) -> Result<(), Failed> {
        let began = Instant::now();
        for port in (PORT..PORT + PODS).chain([NGINX]) {
            while ask(port, "/readyz").await.is_none_or(|status| status != 200) {
                if began.elapsed() > PATIENCE {
                    return Err(format!("nobody is ready on port {port}").into());
                }
                sleep(PROBE_EVERY).await;
            }
        }
        Ok(())
    }

    /// What the largest pod has in memory.
    fn memory_mib(&self) -> u64 {
        let of = |pid: &std::path::PathBuf| -> Option<u64> {
            let pid = std::fs::read_to_string(pid).ok()?;
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.pids.iter().filter_map(of).max().unwrap_or(0) / 1024
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The pods and nginx end with it.
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}

async fn buy(clients: usize, seconds: u64, hot: bool) -> Result<Value, Failed> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kassa"));
    command.args(["bench", "--json", "--url", &format!("http://127.0.0.1:{NGINX}")]);
    command.args(["--clients", &clients.to_string(), "--seconds", &seconds.to_string()]);
    if hot {
        command.arg("--hot");
    }
    let output = command.output().await?;
    // 1 says that books disagree, or that there were errors: the table shows those.
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("kassa bench: {error}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Asks every pod how it is until it is over; the longest that one took.
async fn probe(over: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        for pod in 0..PODS {
            let at = Instant::now();
            let well = ask(PORT + pod, "/healthz").await == Some(200);
            longest = longest.max(if well { at.elapsed() } else { PATIENCE });
        }
        sleep(PROBE_EVERY).await;
    }
    longest
}

async fn ask(port: u16, path: &str) -> Option<u16> {
    let talk = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        status(&answer)
    };
    timeout(PATIENCE, talk).await.ok()?
}

fn status(answer: &[u8]) -> Option<u16> {
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// Clients that send a head a byte at a time, a body a byte at a time, or never read what they are told; half
/// of them through nginx, half at a pod. Whoever is cut off comes back.
fn slow(mob: &mut JoinSet<()>, over: &Arc<AtomicBool>) {
    for n in 0..3 * SLOW_EACH {
        let over = over.clone();
        let port = if n % 2 == 0 { NGINX } else { PORT };
        mob.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let talk = async {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
                    match n % 3 {
                        0 => trickle(&mut stream, b"", &[b'x'; 1_000]).await,
                        1 => {
                            let head =
                                b"POST /stock/add/1/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
                            trickle(&mut stream, head, &[b'x'; 1_000]).await
                        }
                        _ => {
                            let request = b"GET /stock/find/1 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(UNREAD);
                            stream.write_all(&request).await?;
                            std::future::pending().await
                        }
                    }
                };
                let _: std::io::Result<()> = talk.await;
                sleep(PROBE_EVERY).await;
            }
        });
    }
}

async fn trickle(stream: &mut TcpStream, head: &[u8], bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(head).await?;
    for byte in bytes {
        stream.write_all(std::slice::from_ref(byte)).await?;
        sleep(TRICKLE).await;
    }
    Ok(())
}

/// Clients that ask again the moment they are answered, whatever they are told.
fn flood(mob: &mut JoinSet<()>, over: &Arc<AtomicBool>, told: &Arc<Told>) {
    for n in 0..CROWD - CLIENTS {
        let (over, told) = (over.clone(), told.clone());
        mob.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                if keep_asking(&over, &told, n).await.is_err() {
                    told.other.fetch_add(1, Ordering::Relaxed);
                    sleep(PROBE_EVERY).await;
                }
            }
        });
    }
}

async fn keep_asking(over: &AtomicBool, told: &Told, n: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", NGINX)).await?;
    let request = format!("GET /stock/find/{} HTTP/1.1\r\nHost: x\r\n\r\n", n % 1_000);
    let mut answer = vec![0; 4_096];
    while !over.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes()).await?;
        // An answer is small and comes in one piece, or its head does.
        let read = stream.read(&mut answer).await?;
        let count = match status(&answer[..read]) {
            Some(200) => &told.well,
            Some(429 | 503) => &told.put_off,
            Some(_) => &told.other,
            None => return Err(std::io::ErrorKind::InvalidData.into()),
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
