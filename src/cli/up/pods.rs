//! What each pod of a local cluster is started with.

use super::children::Spec;
use super::layout::{Directory, Size};
use crate::cli::config::{Config, Sources};
use crate::cli::fail;
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// What `up` decides for each pod and a shared configuration therefore cannot.
const OWN_KEYS: [&str; 5] = ["pod", "peers", "http", "fabric", "data"];

/// The configuration that all pods have in common.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    file: Option<(PathBuf, String)>,
    table: Table,
    flags: Size,
    before: Size,
    pub replicas: u64,
    /// How many pods hold each module.
    pub size: Size,
}

impl Shared {
    /// From a file, and for modules from `flags`, or from `before` if neither says it: as the cluster is.
    ///
    /// # Errors
    /// Where the file cannot be read, no pod could start with it, or it names what `up` decides.
    pub fn read(file: Option<&Path>, pods: u16, flags: Size, before: Size) -> anyhow::Result<Self> {
        let mut shared = match file {
            Some(file) => Self::read_file(file)?,
            None => Self::default(),
        };
        (shared.flags, shared.before) = (flags, before);
        let config = shared.check(pods)?;
        shared.replicas = config.number("cluster.replicas");
        let count = |pods: usize| u16::try_from(pods).ok();
        shared.size = Size {
            pods: flags.pods,
            payment_pods: count(config.payment_pods),
            stock_pods: count(config.stock_pods),
        };
        Ok(shared)
    }

    fn read_file(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|error| fail::usage(format!("--config {shown}: it cannot be read ({error})")))?;
        let table: Table = toml::from_str(&text).map_err(|error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = before.lines().count().max(1);
            fail::usage(format!("--config {shown}, line {line}: {}", error.message()))
        })?;
        if let Some(key) = OWN_KEYS.into_iter().find(|key| table.contains_key(*key)) {
            return Err(fail::usage(format!(
                "--config {shown}: `{key}` is set by `kassa up` for each pod\nleave it out, or run the pods by hand with `kassa serve`"
            ))
            .into());
        }
        Ok(Self { file: Some((file.to_owned(), text)), table, ..Self::default() })
    }

    /// Every pod of so many would accept it; a fault is told with its place in the file.
    fn check(&self, pods: u16) -> anyhow::Result<Config> {
        let peers: Vec<String> = (0..pods).map(|pod| format!("{pod}=127.0.0.1:1")).collect();
        let own = [("pod", "0"), ("peers", &peers.join(",")), ("data", "pod-0")];
        let mut flags: Vec<(String, String)> =
            own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        for (section, key, value) in self.decided(pods) {
            flags.push((format!("{section}.{key}"), value.to_string()));
        }
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !is_own_variable(name))
            .collect();
        let file = self.file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
        let config = Config::read(&Sources { file, environment, flags }).map_err(|error| {
            // Said of the flags of `up`, not of those that it gives to a pod.
            let said = ["payment", "stock"].into_iter().fold(error.to_string(), |said, module| {
                said.replace(&format!("--set {module}.pods: `{module}.pods`"), &format!("--{module}-pods"))
            });
            fail::usage(said)
        })?;
        Ok(config)
    }

    /// What flags say, and what fewer pods than the defaults ask for need, where it is not set.
    fn decided(&self, pods: u16) -> Vec<(&'static str, &'static str, i64)> {
        let is_set = |section: &str, key: &str| {
            self.table.get(section).and_then(Value::as_table).is_some_and(|table| table.contains_key(key))
        };
        let mut decided = Vec::new();
        if pods < 3 && !is_set("cluster", "replicas") {
            decided.push(("cluster", "replicas", i64::from(pods)));
        }
        let (flags, before) = (self.flags, self.before);
        for (section, flag, before) in [
            ("payment", flags.payment_pods, before.payment_pods),
            ("stock", flags.stock_pods, before.stock_pods),
        ] {
            let pods = flag.or(before.filter(|_| !is_set(section, "pods")));
            decided.extend(pods.map(|pods| (section, "pods", i64::from(pods))));
        }
        decided
    }

    fn for_pod(&self, pod: u16, http_port: u16, directory: &Directory) -> Table {
        let local = |port: u16| Value::from(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string());
        let ports = &directory.layout.fabric_ports;
        let mut table = self.table.clone();
        table.insert("pod".into(), Value::from(i64::from(pod)));
        table.insert("http".into(), local(http_port));
        table.insert("fabric".into(), local(ports[usize::from(pod)]));
        table.insert("data".into(), Value::from(directory.pod(pod).display().to_string()));
        let peers = ports.iter().zip(0_i64..).map(|(&port, pod)| {
            Value::from(Table::from_iter([("pod".into(), Value::from(pod)), ("fabric".into(), local(port))]))
        });
        table.insert("peers".into(), Value::Array(peers.collect()));
        for (section, key, value) in self.decided(directory.layout.pods) {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Some(section) = section.as_table_mut() {
                section.insert(key.to_owned(), Value::from(value));
            }
        }
        table
    }
}

/// Whether the environment names with it what belongs to one pod, and would give it to all.
#[must_use]
pub fn is_own_variable(name: &str) -> bool {
    let key = name.strip_prefix("KASSA_").unwrap_or_default().to_ascii_lowercase();
    key == "config" || OWN_KEYS.contains(&key.as_str())
}

/// Every pod's configuration, and how to start it.
///
/// # Errors
/// Where a directory or file cannot be written.
pub fn specs(
    directory: &Directory,
    shared: &Shared,
    http_ports: &[u16],
    this: &Path,
    restart: bool,
) -> anyhow::Result<Vec<Spec>> {
    let mut specs = Vec::with_capacity(http_ports.len());
    for (&http_port, pod) in http_ports.iter().zip(0_u16..) {
        let dir = directory.pod(pod);
        let config = dir.join("kassa.toml");
        let text = toml::to_string(&shared.for_pod(pod, http_port, directory))
            .context("cannot write down a pod's configuration")?;
        let text = format!("# Written by `kassa up`, anew at every start.\n{text}");
        let arguments = ["serve", "--config", &config.display().to_string(), "--with-parent"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.push(std::process::id().to_string());
        specs.push(Spec {
            name: format!("pod {pod}"),
            program: this.to_owned(),
            arguments,
            log: dir.join("log"),
            config: Some((config, text)),
            pid_file: Some(dir.join("pid")),
            restart,
            hears: false,
        });
    }
    Ok(specs)
}
