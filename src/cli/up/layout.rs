//! The data directory of a local cluster: whose it is, and what is fixed in it.
//!
//! `cluster.toml` marks the directory as made by kassa and keeps what a restart must find again: how many
//! pods there are, how many of them hold each module, and the ports of their fabric. The lock is on the directory itself, so that it goes
//! with the process that held it.

use crate::cli::fail;
use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

const MARKER: &str = "cluster.toml";
const FORMAT: u32 = 1;
/// As many as survive the loss of one.
pub const PODS_DEFAULT: u16 = 3;
/// Fabric ports are sought from here above the HTTP port on, and this many are looked at.
const FABRIC_OFFSET: u16 = 200;
const FABRIC_SEARCH: u16 = 200;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    format: u32,
    pub pods: u16,
    /// Not in files of before modules could lie on some of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_pods: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stock_pods: Option<u16>,
    pub fabric_ports: Vec<u16>,
}

/// How many pods a cluster is to have, and how many of them hold each module, where that is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    pub pods: Option<u16>,
    pub payment_pods: Option<u16>,
    pub stock_pods: Option<u16>,
}

/// The directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    pub layout: Layout,
    /// Whether a cluster ran here before.
    pub existed: bool,
    _lock: File,
}

impl Directory {
    /// Takes the directory, makes it where it is not there, and empties it first if that is asked for.
    ///
    /// # Errors
    /// Where it is another's, is in use, holds another number of pods, or cannot be read or written.
    pub fn open(path: &Path, fresh: bool, size: Size, http_port: u16) -> anyhow::Result<Self> {
        let shown = path.display();
        std::fs::create_dir_all(path).with_context(|| format!("cannot make the data directory {shown}"))?;
        let path = path.canonicalize().with_context(|| format!("cannot find the data directory {shown}"))?;
        let lock = File::open(&path).with_context(|| format!("cannot open the data directory {shown}"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            fail::impossible(format!(
                "another `kassa up` is running on {shown}\nstop it first, or choose another directory with --data"
            ))
        })?;
        let empty =
            std::fs::read_dir(&path).with_context(|| format!("cannot read {shown}"))?.next().is_none();
        let marker = path.join(MARKER);
        if !empty && !marker.is_file() {
            return Err(fail::usage(format!(
                "{shown} was not made by kassa (it has no {MARKER}) and is left as it is\nchoose an empty or new directory with --data"
            ))
            .into());
        }
        if fresh && !empty {
            clear(&path)?;
        }
        let existed = !empty && !fresh;
        let layout = if existed { read(&marker, size)? } else { Layout::new(size, http_port)? };
        if !existed {
            let text = toml::to_string(&layout).context("cannot write down the layout")?;
            let text = format!("# Made by `kassa up`; what is fixed for this cluster.\n{text}");
            write_whole(&marker, &text)?;
        }
        Ok(Self { path, layout, existed, _lock: lock })
    }

    #[must_use]
    pub fn pod(&self, pod: u16) -> PathBuf {
        self.path.join(format!("pod-{pod}"))
    }
}

impl Layout {
    fn new(size: Size, http_port: u16) -> anyhow::Result<Self> {
        let pods = size.pods.unwrap_or(PODS_DEFAULT);
        let first = u32::from(http_port) + u32::from(FABRIC_OFFSET);
        let fabric_ports: Vec<u16> = (first..first + u32::from(FABRIC_SEARCH))
            .filter_map(|port| u16::try_from(port).ok())
            .filter(|&port| is_free(port))
            .take(usize::from(pods))
            .collect();
        if fabric_ports.len() < usize::from(pods) {
            return Err(fail::impossible(format!(
                "no {pods} free ports for the fabric between {first} and {}\nchoose another --http-port",
                first + u32::from(FABRIC_SEARCH) - 1
            ))
            .into());
        }
        let Size { payment_pods, stock_pods, .. } = size;
        Ok(Self { format: FORMAT, pods, payment_pods, stock_pods, fabric_ports })
    }
}

/// The pods of the cluster in a directory, whether it runs or not; for commands that only look.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub fn look(path: &Path) -> anyhow::Result<Layout> {
    read(&path.join(MARKER), Size::default())
}

/// Whether this machine lets us listen there now.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Writes a file that is either the old or the new one, never half of it. One that is so already is left
/// alone: on a disk that is full a cluster can still be started.
///
/// # Errors
/// Where the file system refuses.
pub fn write_whole(file: &Path, text: &str) -> anyhow::Result<()> {
    if std::fs::read(file).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let beside = file.with_extension("new");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn read(marker: &Path, size: Size) -> anyhow::Result<Layout> {
    let text =
        std::fs::read_to_string(marker).with_context(|| format!("cannot read {}", marker.display()))?;
    let layout: Layout = toml::from_str(&text)
        .map_err(|error| fail::usage(format!("{} is damaged: {}", marker.display(), error.message())))?;
    if layout.format != FORMAT || usize::from(layout.pods) != layout.fabric_ports.len() {
        return Err(
            fail::usage(format!("{} is of a kind that this kassa does not know", marker.display())).into()
        );
    }
    let has = [
        ("", size.pods, layout.pods),
        ("payment on ", size.payment_pods, layout.payment_pods.unwrap_or(layout.pods)),
        ("stock on ", size.stock_pods, layout.stock_pods.unwrap_or(layout.pods)),
    ];
    match has.into_iter().find(|(_, wanted, has)| wanted.is_some_and(|wanted| wanted != *has)) {
        Some((what, wanted, has)) => Err(fail::usage(format!(
            "{what}{} pods: the cluster in {} has {what}{has}\nleave that out, start anew with --fresh, or choose another --data",
            wanted.unwrap_or_default(),
            marker.parent().unwrap_or(marker).display(),
        ))
        .into()),
        None => Ok(layout),
    }
}

/// Everything but the marker, which goes last by being written anew: a run that was cut short can be
/// repeated.
fn clear(path: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry.context("cannot read the data directory")?;
        if entry.file_name() == MARKER {
            continue;
        }
        let file = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { std::fs::remove_dir_all(&file) } else { std::fs::remove_file(&file) };
        removed.with_context(|| format!("cannot empty the data directory: {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fail::{Exit, exit_of};

    fn pods(pods: u16) -> Size {
        Size { pods: Some(pods), ..Size::default() }
    }

    #[test]
    fn a_directory_continues_where_it_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Directory::open(dir.path(), false, pods(2), 20_000).expect("empty is fine");
        assert!(!first.existed);
        let layout = first.layout.clone();
        drop(first);
        let second = Directory::open(dir.path(), false, Size::default(), 30_000).expect("its own");
        assert!(second.existed);
        assert_eq!(second.layout, layout);
    }

    #[test]
    fn two_at_once_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let _first = Directory::open(dir.path(), false, Size::default(), 20_000).expect("the first");
        let error = Directory::open(dir.path(), true, Size::default(), 20_000).expect_err("the second");
        assert_eq!(exit_of(&error), Exit::Impossible);
    }

    #[test]
    fn fresh_empties_only_what_kassa_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let photo = dir.path().join("photo.jpg");
        std::fs::write(&photo, "mine").expect("written");
        for fresh in [false, true] {
            let error = Directory::open(dir.path(), fresh, Size::default(), 20_000).expect_err("another's");
            assert_eq!(exit_of(&error), Exit::Usage);
            assert!(photo.is_file());
        }
        std::fs::remove_file(&photo).expect("removed");
        drop(Directory::open(dir.path(), false, pods(3), 20_000).expect("now empty"));
        std::fs::create_dir_all(dir.path().join("pod-0/order")).expect("made");
        drop(Directory::open(dir.path(), true, pods(1), 20_000).expect("its own"));
        assert!(!dir.path().join("pod-0").exists());
    }

    #[test]
    fn another_number_of_pods_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(Directory::open(dir.path(), false, pods(3), 20_000).expect("made"));
        let error = Directory::open(dir.path(), false, pods(5), 20_000).expect_err("fixed");
        assert_eq!(exit_of(&error), Exit::Usage);
        let error = |size: Size| {
            let opened = Directory::open(dir.path(), false, size, 20_000);
            opened.expect_err("fixed too").to_string()
        };
        let stock = error(Size { stock_pods: Some(2), ..Size::default() });
        assert!(
            stock.contains("stock on 2 pods: the cluster in") && stock.contains("has stock on 3"),
            "{stock}"
        );
        assert!(error(Size { payment_pods: Some(2), ..Size::default() }).contains("has payment on 3"));
        let all = Size { stock_pods: Some(3), ..Size::default() };
        drop(Directory::open(dir.path(), false, all, 20_000).expect("as it is"));
    }
}
