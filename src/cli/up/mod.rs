//! `kassa up`: a whole cluster on this machine.
//!
//! Pods are child processes, each a `kassa serve` with a configuration of its own; nginx stands in front
//! where there is one. All files are under the data directory.

pub mod children;
pub mod layout;
pub mod nginx;
mod pods;

use super::fail;
use super::http::{Connection, Target};
use super::{loss, place, print};
use crate::exit::say;
use anyhow::Context;
use clap::Args;
use layout::{Directory, Layout, Size};
use nginx::{Front, Nginx};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pods of one machine; beyond this the machine, not the cluster, is what one learns about.
const PODS_MAX: u16 = 16;
/// nginx listens this far below the pods, unless told otherwise.
const NGINX_BELOW: u16 = 100;
/// How often a starting cluster is asked whether it is ready.
const POLL: Duration = Duration::from_millis(20);
/// A cluster that starts slowly says after this long what it waits for.
const SAY_WHY_AFTER: Duration = Duration::from_secs(5);
/// Ports of a cluster that was killed a moment ago become free within this.
const PORT_WAIT: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kassa up --pods 5 --fresh        five pods, on an emptied ./kassa-data
  kassa up --pods 5 --payment-pods 3 --data five    payment on three of them, stock on all
  kassa up --pods 1 --data one     a single pod, to try things out: it bears no loss

It runs until Ctrl-C and prints the URLs and a tour once it can sell. Then, in another terminal:
  kassa status                     who leads what, and what is in flight
  kassa verify                     checks out at once and compares the books
  kassa bench                      how many checkouts it commits a second")]
pub struct UpArgs {
    /// How many pods; fixed once a data directory holds a cluster [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(PODS_MAX)))]
    pub pods: Option<u16>,
    /// So many of the pods hold payment and orders; fixed likewise [default: all]
    #[arg(long, value_name = "PODS")]
    pub payment_pods: Option<u16>,
    /// So many of the pods hold stock; fixed likewise [default: all]
    #[arg(long, value_name = "PODS")]
    pub stock_pods: Option<u16>,
    /// Pod n listens on this port + n
    #[arg(long, default_value_t = 8000, value_name = "PORT")]
    pub http_port: u16,
    /// Where everything is kept; a second `up` on it continues where the first ended
    #[arg(long, default_value = "kassa-data", value_name = "DIR")]
    pub data: PathBuf,
    /// The port of the nginx in front [default: http-port − 100, if there is an nginx]
    #[arg(long, value_name = "PORT")]
    pub nginx: Option<u16>,
    /// Empty the data directory first, if kassa made it
    #[arg(long)]
    pub fresh: bool,
    /// Configuration that all pods share: [cluster], [checkout], [limits], … as in `serve`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Leave a pod that died where it lies
    #[arg(long)]
    pub no_restart: bool,
}

/// Starts the cluster and runs until a signal, or until nothing is left to run.
///
/// # Errors
/// Wrong flags, a port that is taken, a directory that is not ours, or pods that all gave up.
pub fn run(args: &UpArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(run_cluster(args))
}

async fn run_cluster(args: &UpArgs) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for signals")?;

    let prepared = prepare(args).await?;
    let Prepared { directory, http_ports, pods: specs, front, replicas } = &prepared;
    let pods = directory.layout.pods;
    let (stop, stopped) = watch::channel(false);
    let mut children = JoinSet::new();
    for spec in specs.iter().chain(front.as_ref().map(|front| &front.spec)) {
        children.spawn(children::keep(spec.clone(), stopped.clone()));
    }

    let welcome = welcome(directory, http_ports, front.as_ref().map(|front| front.port), *replicas);
    let mut pods_left = pods;
    let mut gave_up = None;
    tokio::pin!(welcome);
    let mut welcomed = false;
    loop {
        tokio::select! {
            () = &mut welcome, if !welcomed => welcomed = true,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => break,
            Some(ended) = children.join_next() => {
                if ended.context("a task of `up` failed")??.is_some() {
                    pods_left -= 1;
                }
                if pods_left == 0 {
                    gave_up = Some(fail::impossible(format!(
                        "no pod is left running\nthe reason is at the end of {}",
                        directory.pod(0).join("log").display()
                    )));
                    break;
                }
            }
        }
    }
    if gave_up.is_none() {
        say("stopping");
    }
    place::remove(&directory.path);
    // Nobody listens any more only if all children have ended.
    let _ = stop.send(true);
    while let Some(ended) = children.join_next().await {
        ended.context("a task of `up` failed")??;
    }
    gave_up.map_or(Ok(()), |failure| Err(failure.into()))
}

/// A cluster that is ready to be started: its files are written, and its ports are free.
#[derive(Debug)]
pub struct Prepared {
    pub directory: Directory,
    pub http_ports: Vec<u16>,
    pub pods: Vec<children::Spec>,
    pub front: Option<PreparedFront>,
    /// Copies of each shard.
    pub replicas: u64,
}

/// The nginx in front of it.
#[derive(Debug)]
pub struct PreparedFront {
    pub port: u16,
    pub spec: children::Spec,
}

/// # Errors
/// Wrong flags, a port that is taken, a directory that is not ours.
pub async fn prepare(args: &UpArgs) -> anyhow::Result<Prepared> {
    let existing = if args.fresh { None } else { layout::look(&args.data).ok() };
    let flags = Size { pods: args.pods, payment_pods: args.payment_pods, stock_pods: args.stock_pods };
    // Another number of pods is refused, with more to say of it, when the directory is opened.
    let before = existing.filter(|layout| args.pods.is_none_or(|pods| pods == layout.pods));
    let before = before.map(|Layout { pods, payment_pods, stock_pods, .. }| Size {
        pods: Some(pods),
        payment_pods,
        stock_pods,
    });
    let before = before.unwrap_or_default();
    let expected = args.pods.or(before.pods).unwrap_or(layout::PODS_DEFAULT);
    // What can be refused is refused before anything is emptied.
    ports(args.http_port, expected)?;
    let shared = pods::Shared::read(args.config.as_deref(), expected, flags, before)?;
    let nginx = find_nginx(args)?;
    let directory = Directory::open(&args.data, args.fresh, shared.size, args.http_port)?;
    let http_ports = ports(args.http_port, directory.layout.pods)?;
    let front = nginx.map(|(nginx, port)| (nginx, front(&directory, port, &http_ports)));
    wait_for_ports(&directory, &http_ports, front.as_ref().map(|(_, front)| front.listen.port())).await?;

    let this = std::env::current_exe().context("cannot find the kassa binary itself")?;
    let pods = pods::specs(&directory, &shared, &http_ports, &this, !args.no_restart)?;
    let front = match front {
        Some((nginx, front)) => {
            front.write()?;
            Some(PreparedFront { port: front.listen.port(), spec: front_spec(&nginx, &front, &this) })
        }
        None => None,
    };
    Ok(Prepared { directory, http_ports, pods, front, replicas: shared.replicas })
}

/// The nginx to use and its port. That there is none matters only if it was asked for.
fn find_nginx(args: &UpArgs) -> anyhow::Result<Option<(Nginx, u16)>> {
    match (Nginx::find(), args.nginx) {
        (Some(nginx), Some(port)) => Ok(Some((nginx, port))),
        (Some(nginx), None) => match args.http_port.checked_sub(NGINX_BELOW).filter(|&port| port > 0) {
            Some(port) => Ok(Some((nginx, port))),
            None => Err(fail::usage(format!(
                "--http-port {}: nginx would listen {NGINX_BELOW} below that\nchoose a higher port, or name one with --nginx",
                args.http_port
            ))
            .into()),
        },
        (None, Some(port)) => {
            Err(fail::usage(format!("--nginx {port}: there is no nginx on the PATH\n{}", Nginx::advice())).into())
        }
        (None, None) => {
            say(&format!("no nginx on the PATH, so none stands in front; any pod answers any request\n       {}",
                Nginx::advice()
            ));
            Ok(None)
        }
    }
}

fn ports(first: u16, pods: u16) -> anyhow::Result<Vec<u16>> {
    if first == 0 || first.checked_add(pods).is_none() {
        return Err(fail::usage(format!(
            "--http-port {first}: {pods} pods need ports from there on\nchoose one between 1 and {}",
            u16::MAX - pods
        ))
        .into());
    }
    Ok((first..first + pods).collect())
}

/// All ports of the cluster are free, or become so as its last run dies.
async fn wait_for_ports(directory: &Directory, http: &[u16], nginx: Option<u16>) -> anyhow::Result<()> {
    let wanted = (nginx.iter().map(|&port| (port, "nginx", "--nginx PORT")))
        .chain(http.iter().map(|&port| (port, "a pod", "--http-port PORT")))
        .chain(
            directory.layout.fabric_ports.iter().map(|&port| (port, "the fabric", "--data DIR or --fresh")),
        );
    let until = Instant::now() + if directory.existed { PORT_WAIT } else { Duration::ZERO };
    for (port, whose, flag) in wanted {
        while !layout::is_free(port) {
            if Instant::now() >= until {
                return Err(fail::impossible(format!(
                    "port {port}, for {whose}, is taken\nstop what listens there, or choose other ports with {flag}"
                ))
                .into());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

fn front(directory: &Directory, port: u16, http_ports: &[u16]) -> Front {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Front {
        dir: directory.path.join("nginx"),
        listen: local(port),
        pods: http_ports.iter().map(|&port| local(port)).collect(),
        worker_user: nginx::worker_user(),
        open_files_max: nginx::open_files_max(),
    }
}

fn front_spec(nginx: &Nginx, front: &Front, this: &std::path::Path) -> children::Spec {
    let mut arguments = vec!["run-with-parent".to_owned(), std::process::id().to_string(), "--".to_owned()];
    arguments.extend(nginx.command(front));
    children::Spec {
        name: "nginx".into(),
        program: this.to_owned(),
        arguments,
        log: front.dir.join("error.log"),
        config: None,
        pid_file: None,
        restart: true,
        hears: false,
    }
}

/// Waits until every pod answers, through nginx too, and says where and how to go on.
async fn welcome(directory: &Directory, http_ports: &[u16], nginx: Option<u16>, replicas: u64) {
    let started = Instant::now();
    let mut said_why = false;
    for port in http_ports.iter().copied().chain(nginx) {
        let target = Target::local(port);
        let mut connection = Connection::new(&target);
        let request = target.request("GET", "/readyz", None);
        loop {
            let why = match connection.ask(&request).await {
                Ok(answer) if answer.status == 200 => break,
                Ok(answer) => answer.body,
                Err(broken) => broken.to_string(),
            };
            if !said_why && started.elapsed() > SAY_WHY_AFTER {
                said_why = true;
                say(&format!("{} is not ready yet: {}", target.url(), why.trim()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    let urls =
        |ports: &[u16]| ports.iter().map(|&port| Target::local(port).url()).collect::<Vec<_>>().join("  ");
    let shop = urls(&[nginx.unwrap_or(http_ports[0])]);
    let all: Vec<String> = http_ports.iter().map(|&port| Target::local(port).url()).collect();
    if let Err(error) = place::write(&directory.path, &shop, &all) {
        say(&format!("{error:#}"));
    }
    let pods = http_ports.len();
    print::line(&format!(
        "kassa is ready after {:.1} s: {pods} {}, data in {}",
        started.elapsed().as_secs_f64(),
        if pods == 1 { "pod" } else { "pods" },
        directory.path.display()
    ));
    if let Some(warning) = loss::warning(replicas) {
        print::line(warning);
    }
    if nginx.is_some() {
        print::line(&format!("  nginx  {shop}"));
    }
    print::line(&format!(
        "  pods   {}\n\nA tour (a user, an item, an order, a checkout, the books):",
        urls(http_ports)
    ));
    print::line(&tour(&shop));
    print::line("\nNext: `kassa status`, `kassa verify`, `kassa bench`. Ctrl-C stops everything.");
}

/// Five lines to paste into a shell.
fn tour(shop: &str) -> String {
    let id = r#"cut -d'"' -f4"#;
    let curl = r"curl -sw '\n'";
    format!(
        r#"  U=$(curl -sX POST {shop}/payment/create_user | {id}); {curl} -X POST {shop}/payment/add_funds/$U/100
  I=$(curl -sX POST {shop}/stock/item/create/7.25 | {id}); {curl} -X POST {shop}/stock/add/$I/10
  O=$(curl -sX POST {shop}/orders/create/$U | {id}); {curl} -X POST {shop}/orders/addItem/$O/$I/2
  {curl} -X POST {shop}/orders/checkout/$O
  {curl} {shop}/payment/find_user/$U {shop}/stock/find/$I"#
    )
}
