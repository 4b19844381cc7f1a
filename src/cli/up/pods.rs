//! What each pod of a local cluster is started with.

use super::children::Spec;
use super::layout::{Directory, write_whole};
use crate::cli::fail;
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use toml::{Table, Value};

/// What `up` decides for each pod and a shared configuration therefore cannot.
const OWN_KEYS: [&str; 5] = ["pod", "peers", "http", "fabric", "data"];

/// The configuration that all pods have in common.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    table: Table,
}

impl Shared {
    /// # Errors
    /// Where the file cannot be read, is no TOML, or names what `up` decides.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else { return Ok(Self::default()) };
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
        Ok(Self { table })
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
        // Fewer pods than the defaults ask for still make a cluster, as far as that can be.
        let pods = i64::try_from(ports.len()).unwrap_or(i64::MAX);
        set_default(&mut table, "cluster", "replicas", pods.min(3));
        if pods < 2 {
            set_default(&mut table, "stock", "write_quorum", pods);
        }
        table
    }
}

fn set_default(table: &mut Table, section: &str, key: &str, value: i64) {
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Some(section) = section.as_table_mut() {
        section.entry(key).or_insert(Value::from(value));
    }
}

/// Writes every pod's configuration and says how to start it.
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
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let config = dir.join("kassa.toml");
        let text = toml::to_string(&shared.for_pod(pod, http_port, directory))
            .context("cannot write down a pod's configuration")?;
        write_whole(&config, &format!("# Written by `kassa up`, anew at every start.\n{text}"))?;
        let arguments = ["serve", "--config", &config.display().to_string(), "--with-parent"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.push(std::process::id().to_string());
        specs.push(Spec {
            name: format!("pod {pod}"),
            program: this.to_owned(),
            arguments,
            log: dir.join("log"),
            pid_file: Some(dir.join("pid")),
            restart,
        });
    }
    Ok(specs)
}
