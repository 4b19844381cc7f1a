//! `kassa serve`: one pod, from its configuration to its end.
//!
//! In this order, so that a pod never votes from what it is not sure of: the directory is locked, the
//! identity read or drawn, the stores opened and their logs read back; then the cluster forms, if it
//! has not; only then do links and shards begin. Clients are answered from the start: until the loop
//! runs they are told that nothing was done, and health checks say why.

mod terms;

use super::config::{self, Config, Sources};
use super::fail::{self, Exit};
use super::{faults, loss, parent, print};
use crate::fabric::formation::{Forming, form};
use crate::fabric::hello::{Hello, Refusal};
use crate::fabric::identity::{Formed, Identity, IdentityError};
use crate::fabric::{self, Timing};
use crate::failpoint;
use crate::runtime::Handle;
use crate::runtime::clock::{Clock, span};
use crate::runtime::event_loop::Recovered;
use crate::runtime::faults::Faults;
use crate::runtime::handle::Event;
use crate::runtime::stores::{Stores, directories, lacks_room};
use crate::{api, node};
use anyhow::Context;
use clap::{Args, ValueEnum};
use crossbeam_channel::Receiver;
use kassa_protocols::ids::PodId;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// From the signal to the end, whatever hangs.
const STOP_MAX: Duration = Duration::from_millis(4_800);
/// Connections that the kernel keeps until they are accepted: whoever finds no room knocks again after a
/// second, and a crowd comes all at once. Linux allows no more unless it is told to.
const BACKLOG: u32 = 4_096;
/// Of the storage engine only what goes wrong: it tells why a write in the background failed.
const LOG_DEFAULT: &str = "info,fjall=error,lsm_tree=error";
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  kassa serve --print-config > pod.toml      every key, its default and what it means
  kassa serve --config pod.toml --set http=127.0.0.1:9000

Later ones win: the file, the environment (KASSA_HTTP, KASSA_TIMING_ELECTION_MS), flags.
Logs go to stderr; KASSA_LOG=info,kassa::fabric=debug chooses what. Ends on Ctrl-C or TERM.")]
pub struct ServeArgs {
    /// The configuration file
    #[arg(long, env = "KASSA_CONFIG")]
    config: Option<PathBuf>,
    /// This pod's number
    #[arg(long)]
    pod: Option<String>,
    /// Every pod's number and fabric address: 0=HOST:PORT,1=HOST:PORT
    #[arg(long)]
    peers: Option<String>,
    /// Where clients are served
    #[arg(long)]
    http: Option<String>,
    /// Where the other pods connect
    #[arg(long)]
    fabric: Option<String>,
    /// This pod's directory
    #[arg(long)]
    data: Option<String>,
    /// Any key of the configuration; may be given more than once
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Show every key with its default, unit and meaning, and end
    #[arg(long)]
    print_config: bool,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// The process whose end is this one's end
    #[arg(long, hide = true)]
    with_parent: Option<u32>,
    /// Be made ill as the lines on standard input say, for `kassa torture`
    #[arg(long, hide = true)]
    faults_from_stdin: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Serves until it is told to stop.
///
/// # Errors
/// If the configuration is wrong, a port is taken, or the disk cannot be trusted.
pub fn run(args: &ServeArgs) -> anyhow::Result<Exit> {
    if args.print_config {
        print::line(config::print().trim_end());
        return Ok(Exit::Done);
    }
    if let Some(parent) = args.with_parent {
        parent::die_with(parent, Signal::KILL)?;
    }
    if let Some(site) = failpoint::unknown() {
        return Err(fail::usage(format!("KASSA_FAILPOINT={site}: no such site")).into());
    }
    let config = read_config(args)?;
    start_log(args.log_format)?;
    raise_open_files();
    if let Some(warning) = loss::warning(config.number("cluster.replicas")) {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.count("limits.io_threads"))
        .thread_name("kassa-io")
        .enable_all()
        .build()
        .context("the threads that serve cannot be started")?;
    let served = runtime.block_on(serve(config, args.faults_from_stdin));
    // What is still running holds nothing that needs an orderly end.
    runtime.shutdown_background();
    served.map(|()| Exit::Done)
}

fn read_config(args: &ServeArgs) -> anyhow::Result<Config> {
    let text = match &args.config {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| fail::usage(format!("--config {}: {error}", path.display())))?,
        None => String::new(),
    };
    let mut flags = Vec::new();
    let named = [
        ("pod", &args.pod),
        ("peers", &args.peers),
        ("http", &args.http),
        ("fabric", &args.fabric),
        ("data", &args.data),
    ];
    for (key, value) in named {
        flags.extend(value.iter().map(|value| (key.to_owned(), value.clone())));
    }
    for set in &args.set {
        let (key, value) = set
            .split_once('=')
            .ok_or_else(|| fail::usage(format!("--set {set}: write it as KEY=VALUE, such as pod=0")))?;
        flags.push((key.to_owned(), value.to_owned()));
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let file = args.config.as_deref().map(|path| (path, text.as_str()));
    let sources = Sources { file, environment, flags };
    Ok(Config::read(&sources).map_err(|error| fail::usage(error.to_string()))?)
}

fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let wanted = std::env::var("KASSA_LOG").unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&wanted)
        .map_err(|error| fail::usage(format!("KASSA_LOG={wanted}: {error}; try info,kassa::fabric=debug")))?;
    let ansi = std::io::stderr().is_terminal();
    // A line that cannot be written, as on a full disk, is lost; telling of that would fail as well.
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(ansi)
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

/// Each client is an open file, and the usual soft limit is far below what the hard one allows.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!("the limit of open files stays as it is: {error}");
    }
}

async fn serve(config: Config, faults_from_stdin: bool) -> anyhow::Result<()> {
    let peers = config.peers.keys().copied().filter(|&peer| peer != config.pod);
    let faults = Faults::none(peers, Clock::start());
    if faults_from_stdin {
        faults::obey_stdin(faults.clone(), &config)?;
    }
    let stop = stop_on_signal()?;
    let http = listen("http", config.http)?;
    let fabric = listen("fabric", config.fabric)?;
    let (handle, inbox) = Handle::channel(config.count("limits.inbox_events_max"), faults.clock.clone());
    let clients = tokio::spawn(api::serve(http, handle.clone(), api_limits(&config), told(stop.clone())));
    let running = tokio::select! {
        running = begin(config, handle.clone(), inbox, fabric, faults) => Some(running?),
        () = told(stop.clone()) => None,
    };
    if let Some(event_loop) = running {
        told(stop).await;
        // The loop serves on until the requests in flight have been answered.
        let _ = clients.await;
        let ended = tokio::task::spawn_blocking(move || {
            handle.stop();
            event_loop.join()
        });
        // An error is a panic, which has ended the process.
        let _ = ended.await;
    }
    info!("stopped");
    Ok(())
}

/// Everything up to the running loop. See the module's top for the order.
async fn begin(
    config: Config,
    handle: Handle,
    inbox: Receiver<Event>,
    listener: TcpListener,
    faults: Faults,
) -> anyhow::Result<JoinHandle<()>> {
    let (config, mut pod) = tokio::task::spawn_blocking(move || Pod::open(&config).map(|pod| (config, pod)))
        .await
        .context("the pod's directory could not be opened")??;
    failpoint::hit("start.opened");
    let terms = terms::of(&config);
    let peers: BTreeMap<PodId, String> =
        config.peers.iter().filter(|(peer, _)| **peer != config.pod).map(|(k, v)| (*k, v.clone())).collect();
    let hello = Hello {
        pod: config.pod,
        disk: pod.identity.disk,
        boot: rand::random(),
        dial: 0,
        terms,
        formed: pod.identity.formed.clone(),
    };
    info!(
        pod = config.pod.0, http = %config.http, fabric = %config.fabric, data = %config.data.display(),
        disk = %hello.disk, "start"
    );
    let formed = match hello.formed.clone() {
        Some(formed) => formed,
        None => {
            let forming = Forming::new(hello.clone(), config.peers.keys().copied().collect());
            let report = {
                let handle = handle.clone();
                move |waits_for| handle.readiness().publish(vec![waits_for])
            };
            let formed = form(&listener, forming, &peers, fabric_timing(&config), report).await;
            pod.identity.formed = Some(formed.clone());
            pod.identity.persist(&config.data).map_err(identity_failure)?;
            failpoint::hit("start.formed");
            info!(cluster = %formed.cluster, "{}", formed.news(config.pod));
            formed
        }
    };
    let (node_config, clock, stores) = (node_config(&config, &formed), handle.clock(), pod.stores);
    let recovered = tokio::task::spawn_blocking(move || Recovered::read(node_config, stores, &clock))
        .await
        .context("the pod's logs could not be read back")?
        .map_err(|error| fail::impossible(error.to_string()))?;
    failpoint::hit("start.recovered");
    let (replaced, is_replaced) = recovered.replaced();
    if is_replaced {
        let why = Refusal::Replaced { pod: hello.pod, disk: hello.disk };
        return Err(fail::impossible(why.to_string()).into());
    }
    let hello = Hello { formed: Some(Formed { replaced, ..formed }), ..hello };
    let deliver = {
        let handle = handle.clone();
        Box::new(move |event| handle.deliver(event))
    };
    let links = fabric::start(listener, hello, &peers, fabric_timing(&config), faults.links, deliver);
    recovered.start(handle, inbox, links, faults.disk, pod.lock).context("the event loop cannot be started")
}

/// A pod's directory, opened and found whole.
struct Pod {
    identity: Identity,
    stores: Stores,
    lock: File,
}

impl Pod {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let data = &config.data;
        let shown = data.display();
        let io = |error: std::io::Error| fail::disk(format!("{shown}: {error}"), lacks_room(&error));
        std::fs::create_dir_all(data).map_err(io)?;
        let lock = File::open(data).map_err(io)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                fail::impossible(format!("{shown} is in use by another process: stop that one first"))
            } else {
                io(error.into())
            }
        })?;
        std::fs::write(data.join("pid"), format!("{}\n", std::process::id())).map_err(io)?;
        let (fixed, before) = (terms::fixed(config), terms::before_fixed(config));
        let identity = Identity::load(data, config.pod, &directories(data), &fixed, &before)
            .map_err(identity_failure)?;
        if let Some(formed) = &identity.formed
            && !formed.disks.keys().eq(config.peers.keys())
        {
            let pods =
                |keys: Vec<&PodId>| keys.iter().map(|pod| pod.0.to_string()).collect::<Vec<_>>().join(" ");
            return Err(fail::usage(format!(
                "`peers` names the pods {}, but the cluster of {shown} formed with {}",
                pods(config.peers.keys().collect()),
                pods(formed.disks.keys().collect())
            ))
            .into());
        }
        let stall = config.duration("timing.commit_stall_ms");
        let stores = Stores::open(data, config.pod, identity.formed.is_some(), stall)
            .map_err(|error| fail::disk(error.to_string(), error.lacks_room()))?;
        let empty = stores.are_empty().map_err(|error| fail::impossible(error.to_string()))?;
        if identity.formed.is_none() && !empty {
            return Err(fail::impossible(format!(
                "{shown}: the stores hold data, but the identity says that the pod never joined a cluster: \
                 put the right identity back, or refill the pod in a new directory"
            ))
            .into());
        }
        Ok(Self { identity, stores, lock })
    }
}

fn identity_failure(error: IdentityError) -> fail::Failure {
    let message = error.to_string();
    match error {
        IdentityError::Fixed { .. } | IdentityError::OtherPod { .. } => fail::usage(message),
        IdentityError::Io { source, .. } => fail::disk(message, lacks_room(&source)),
        IdentityError::Corrupt { .. }
        | IdentityError::Version { .. }
        | IdentityError::Missing { .. }
        | IdentityError::DataMissing { .. } => fail::impossible(message),
    }
}

fn listen(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = (|| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    })();
    Ok(bound.map_err(|error| fail::impossible(format!("`{key}` {address}: {error}")))?)
}

/// Turns true on TERM or INT; from then on the process ends within [`STOP_MAX`].
fn stop_on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut term = signal(SignalKind::terminate()).context("TERM cannot be listened for")?;
    let mut int = signal(SignalKind::interrupt()).context("INT cannot be listened for")?;
    // A file that may not grow further is then an error of its write, which says what it was, and not
    // the silent end that this signal is by itself. Once listened for, it never is again.
    let too_large = SignalKind::from_raw(Signal::XFSZ.as_raw());
    let _ = signal(too_large).context("XFSZ cannot be listened for")?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        info!("stopping");
        stop.send_replace(true);
        // On a thread, so that it comes to pass even if the runtime hangs.
        std::thread::spawn(|| {
            std::thread::sleep(STOP_MAX);
            // What was acknowledged is on the disk, so the end may be abrupt.
            warn!("stopping took too long; ending at once");
            std::process::exit(i32::from(Exit::Done.code()));
        });
    });
    Ok(stopped)
}

async fn told(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which it is only after it has told.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn node_config(config: &Config, formed: &Formed) -> node::Config {
    let protocol = |key: &str| node::config::Protocol::named(config.text(key)).expect("read as one of them");
    let interval = |key: &str| span(config.duration(key));
    node::Config {
        me: config.pod,
        pods: config.peers.keys().copied().collect(),
        disks: formed.disks.clone(),
        replaced: formed.replaced.clone(),
        shards: u16::try_from(config.number("cluster.shards")).expect("bounded far below this"),
        replicas: config.count("cluster.replicas"),
        payment_pods: config.payment_pods,
        stock_pods: config.stock_pods,
        payment: protocol("payment.protocol"),
        stock: protocol("stock.protocol"),
        write_quorum: usize::try_from(config.write_quorum).expect("at most the replicas"),
        commit: node::config::Commit::named(config.text("checkout.commit")).expect("read as one of them"),
        timing: node::config::Timing {
            heartbeat: interval("timing.heartbeat_ms"),
            election: interval("timing.election_ms"),
            ask_again: interval("timing.ask_again_ms"),
            anywhere_after: interval("timing.anywhere_after_ms"),
            confirm_after: interval("timing.confirm_after_ms"),
            finish_after: interval("timing.finish_after_ms"),
            watermark_every: interval("timing.watermark_every_ms"),
            ..node::config::Timing::default()
        },
        limits: node::config::Limits {
            requests_max: config.count("limits.requests_max"),
            log_bytes_max: config.count("limits.log_bytes_max"),
            dirty_max: config.count("limits.dirty_records_max"),
            confirm_batch_max: config.count("limits.confirm_batch_max"),
            ..node::config::Limits::default()
        },
        seed: rand::random(),
    }
}

fn fabric_timing(config: &Config) -> Timing {
    Timing {
        dial_min: config.duration("timing.dial_min_ms"),
        dial_max: config.duration("timing.dial_max_ms"),
        handshake: config.duration("timing.handshake_ms"),
        stall: config.duration("timing.stall_ms"),
    }
}

fn api_limits(config: &Config) -> api::Limits {
    api::Limits {
        connections_max: config.count("limits.connections_max"),
        requests_in_flight_max: config.count("limits.requests_max"),
        served_max: config.count("limits.served_max"),
        queue_wait: config.duration("timing.queue_wait_ms"),
        head_wait: config.duration("timing.head_wait_ms"),
        idle_wait: config.duration("timing.idle_wait_ms"),
        drain_wait: config.duration("timing.drain_wait_ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn config(flags: &[(&str, &str)]) -> Config {
        let least = [("pod", "0"), ("data", "/tmp/x"), ("peers", "0=h:1,1=h:2,2=h:3")];
        let flags = least.iter().chain(flags).map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Config::read(&Sources { flags, ..Sources::default() }).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let config = config(&[]);
        let node = node_config(&config, &Formed::new(BTreeMap::new()));
        assert_eq!(format!("{:?}", node.timing), format!("{:?}", node::config::Timing::default()));
        assert_eq!(format!("{:?}", node.limits), format!("{:?}", node::config::Limits::default()));
        let api = api_limits(&config);
        assert_eq!(api, api::Limits { requests_in_flight_max: 8_192, ..api::Limits::default() });
        assert!(fabric_timing(&config).dial_min < fabric_timing(&config).dial_max);
    }
}
