//! What HTTP alone costs: the same clients against handlers that do nothing, as many as a cluster has
//! pods, behind an nginx with the same configuration where there is one.

use super::engine;
use super::prepare::Shop;
use super::report::Noop;
use super::settings::Settings;
use crate::cli::http::{Connection, Target};
use crate::cli::up::nginx::{Front, Nginx, open_files_max, worker_user};
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;
use tokio::process::{Child, Command};

/// As many as `up` starts by default.
const HANDLERS: usize = 3;
const POLL: Duration = Duration::from_millis(10);
/// Handlers and nginx are up within this, or never.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Starts the handlers, measures them for `duration` and ends them.
pub async fn measure(clients: usize, duration: Duration) -> anyhow::Result<Noop> {
    let this = std::env::current_exe().context("cannot find the kassa binary itself")?;
    let parent = std::process::id().to_string();
    let mut children = Vec::new();
    let mut handlers = Vec::new();
    for _ in 0..HANDLERS {
        let address = free_address()?;
        let port = address.port().to_string();
        children.push(start(Command::new(&this).args(["noop", "--port", &port, "--with-parent", &parent]))?);
        handlers.push(address);
        wait_for(address).await?;
    }
    let dir = TemporaryDirectory::new()?;
    let mut targets: Vec<Target> = handlers.iter().map(|address| Target::local(address.port())).collect();
    let nginx = Nginx::find();
    if let Some(nginx) = &nginx {
        let front = Front {
            dir: dir.0.clone(),
            listen: free_address()?,
            pods: handlers,
            worker_user: worker_user(),
            open_files_max: open_files_max(),
        };
        front.write()?;
        let mut command = Command::new(&this);
        command.args(["run-with-parent", &parent, "--"]).args(nginx.command(&front));
        children.push(start(&mut command)?);
        wait_for(front.listen).await?;
        targets = vec![Target::local(front.listen.port())];
    }
    let orders = (0..1_000_000).map(|id: u32| id.to_string()).collect();
    let shop = Shop { items: Vec::new(), users: Vec::new(), orders, stock: 0, credit: 0 };
    let settings = Settings::new(targets, clients, duration);
    let tally = engine::run(&Rc::new(shop), &settings, |_| {}).await?;
    for child in &mut children {
        end(child).await;
    }
    let requests_per_second =
        f64::from(u32::try_from(tally.committed).unwrap_or(u32::MAX)) / tally.elapsed.as_secs_f64();
    Ok(Noop { behind_nginx: nginx.is_some(), requests_per_second })
}

fn start(command: &mut Command) -> anyhow::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().context("cannot start a handler to compare with")
}

/// SIGTERM first: nginx takes its worker along only then.
async fn end(child: &mut Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // An error means that it has ended already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(START_WITHIN, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

async fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    let target = Target::local(address.port());
    let request = target.request("GET", "/", None);
    let ready = async {
        while Connection::new(&target).ask(&request).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(START_WITHIN, ready).await.context("the handler to compare with did not start")
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.local_addr().context("no free port")
}

/// Gone with its value.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("kassa-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
