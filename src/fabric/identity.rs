//! Who this directory is: `identity`, the file that makes it one pod of one cluster.
//!
//! A pod draws a disk id of its own and persists it before it tells anybody; the cluster id is a hash
//! of all first pods' disk ids, so that all who know them agree without a vote. Whoever votes from
//! another disk under the same number would forget what it had promised: hence the file, its checksum,
//! and the refusals here.

use super::hello::{Refusal, Terms};
use crate::failpoint;
use kassa_protocols::ids::{DiskId, PodId, Replacement};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Names a cluster: the hash of its first pods' disk ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

/// A cluster that has formed: its name, and the disk that each pod must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formed {
    pub cluster: ClusterId,
    /// Those it formed with, which give it its name.
    pub disks: BTreeMap<PodId, DiskId>,
    /// Those that took the place of lost ones, as far as the speaker knows. In the file of a pod on such a disk:
    /// what was replaced when it joined.
    pub replaced: BTreeMap<PodId, Replacement>,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pod: PodId,
    pub disk: DiskId,
    /// The settings that cannot change once the directory holds data.
    pub fixed: Terms,
    pub formed: Option<Formed>,
}

/// Why a directory cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{}: {reason}; this disk must not vote from a guess: refill the pod in a new directory", path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error(
        "{} is of version {theirs}, and this kassa knows {VERSION}: start the pod with the kassa that wrote it",
        path.display()
    )]
    Version { path: PathBuf, theirs: u16 },
    #[error("{} belongs to {theirs}, not to {ours}: mend `pod` or `data`", path.display())]
    OtherPod { path: PathBuf, theirs: PodId, ours: PodId },
    #[error("{}: a setting cannot change once a cluster has formed: {refusal} (there: on disk)", path.display())]
    Fixed { path: PathBuf, refusal: Refusal },
    #[error(
        "{} is missing, but {} holds data: put the file back, or refill the pod in a new directory",
        path.display(), holds.display()
    )]
    Missing { path: PathBuf, holds: PathBuf },
    #[error(
        "{} is empty or missing, but the pod has been part of a cluster: put it back, or refill the pod in a new directory",
        directory.display()
    )]
    DataMissing { directory: PathBuf },
}

impl Formed {
    #[must_use]
    pub fn new(disks: BTreeMap<PodId, DiskId>) -> Self {
        let mut bytes = Vec::with_capacity(disks.len() * 17);
        for (pod, disk) in &disks {
            bytes.push(pod.0);
            bytes.extend_from_slice(&disk.0.to_be_bytes());
        }
        Self { cluster: ClusterId(xxh3_128(&bytes)), disks, replaced: BTreeMap::new() }
    }

    /// The disk that `pod` must have.
    #[must_use]
    pub fn disk_of(&self, pod: PodId) -> Option<DiskId> {
        self.replaced.get(&pod).map(|known| known.disk).or_else(|| self.disks.get(&pod).copied())
    }

    /// What it means to `pod` that it has learnt of this, for its log.
    #[must_use]
    pub fn news(&self, pod: PodId) -> &'static str {
        if self.times_replaced(pod) > 0 {
            "this pod's disk takes the place of a lost one: it is refilled"
        } else {
            "the cluster has formed"
        }
    }

    /// How many disks of `pod` were replaced.
    #[must_use]
    pub fn times_replaced(&self, pod: PodId) -> u32 {
        self.replaced.get(&pod).map_or(0, |known| known.count)
    }

    /// Whether the name is that of these disks.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        Self::new(self.disks.clone()).cluster == self.cluster
    }
}

impl Identity {
    /// Reads the identity of `pod` in `directory`, or, in a directory that was never used, draws a
    /// disk id and persists it. `modules` are the directories of the pod's stores, `fixed` the settings
    /// that cannot change once the pod belongs to a cluster, `before` those that a file may lack, as they
    /// were when such files were written.
    ///
    /// # Errors
    /// If the file is damaged, belongs to another pod, or does not go with what the stores hold or with
    /// how the pod is configured.
    pub fn load(
        directory: &Path,
        pod: PodId,
        modules: &[PathBuf],
        fixed: &Terms,
        before: &Terms,
    ) -> Result<Self, IdentityError> {
        let path = directory.join(FILE);
        let Some(mut identity) = Self::read(directory)? else {
            return match modules.iter().find(|module| holds_data(module)) {
                Some(holds) => Err(IdentityError::Missing { path, holds: holds.clone() }),
                None => Self::draw(directory, pod, fixed.clone()),
            };
        };
        if identity.pod != pod {
            return Err(IdentityError::OtherPod { path, theirs: identity.pod, ours: pod });
        }
        let formed = identity.formed.is_some();
        if formed && let Err(refusal) = fixed.check(&identity.fixed.or(before)) {
            return Err(IdentityError::Fixed { path, refusal });
        }
        if identity.fixed != *fixed {
            identity.fixed = fixed.clone();
            identity.persist(directory)?;
        }
        if !formed {
            return Ok(identity);
        }
        match modules.iter().find(|module| !holds_data(module)) {
            Some(directory) => Err(IdentityError::DataMissing { directory: directory.clone() }),
            None => Ok(identity),
        }
    }

    /// What the file says, if it is there. Changes nothing.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = directory.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                return Err(IdentityError::Corrupt { path, reason: "it is not text".to_owned() });
            }
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        match Self::parse(&text) {
            Ok(identity) => Ok(Some(identity)),
            Err(Unreadable::Version(theirs)) => Err(IdentityError::Version { path, theirs }),
            Err(Unreadable::Corrupt(reason)) => Err(IdentityError::Corrupt { path, reason }),
        }
    }

    fn draw(directory: &Path, pod: PodId, fixed: Terms) -> Result<Self, IdentityError> {
        let identity = Self { pod, disk: DiskId(rand::random()), fixed, formed: None };
        identity.persist(directory)?;
        Ok(identity)
    }

    /// Writes the file so that after a crash at any moment the old one or the new one is there.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub fn persist(&self, directory: &Path) -> Result<(), IdentityError> {
        let path = directory.join(FILE);
        let write = || -> io::Result<()> {
            failpoint::hit("identity.before");
            let temporary = directory.join(FILE_TEMPORARY);
            let mut file = File::create(&temporary)?;
            file.write_all(self.render().as_bytes())?;
            file.sync_all()?;
            failpoint::hit("identity.written");
            std::fs::rename(&temporary, &path)?;
            failpoint::hit("identity.renamed");
            File::open(directory)?.sync_all()?;
            failpoint::hit("identity.after");
            Ok(())
        };
        write().map_err(|source| IdentityError::Io { path: path.clone(), source })
    }

    fn render(&self) -> String {
        let mut text = format!(
            "# What makes this directory a pod of its cluster. Never edit or copy it.\n\
             version = {VERSION}\npod = {}\ndisk = \"{}\"\n",
            self.pod.0, self.disk
        );
        let fixed: Vec<String> =
            self.fixed.iter().map(|(name, value)| format!("{name:?} = {value:?}")).collect();
        text += &format!("fixed = {{ {} }}\n", fixed.join(", "));
        if let Some(formed) = &self.formed {
            let disks: Vec<String> =
                formed.disks.iter().map(|(pod, disk)| format!("{} = \"{disk}\"", pod.0)).collect();
            text += &format!("cluster = \"{}\"\ndisks = {{ {} }}\n", formed.cluster, disks.join(", "));
            if !formed.replaced.is_empty() {
                let replaced = formed.replaced.iter();
                let replaced: Vec<String> = replaced
                    .map(|(pod, known)| format!("{} = \"{} {}\"", pod.0, known.count, known.disk))
                    .collect();
                text += &format!("replaced = {{ {} }}\n", replaced.join(", "));
            }
        }
        let sum = xxh3_64(text.as_bytes());
        text + &format!("{CHECKSUM}{sum:016x}\"\n")
    }

    fn parse(text: &str) -> Result<Self, Unreadable> {
        let corrupt = |reason: &str| Unreadable::Corrupt(reason.to_owned());
        let (body, sum) = text.rsplit_once(CHECKSUM).ok_or_else(|| corrupt("it has no checksum line"))?;
        if sum.strip_suffix("\"\n") != Some(&format!("{:016x}", xxh3_64(body.as_bytes()))) {
            return Err(corrupt("it fails its checksum"));
        }
        // First of all: what else a later version writes is not known here.
        let Versioned { version } = toml::from_str(body).map_err(|error| corrupt(error.message()))?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        Self::parse_known(body).map_err(Unreadable::Corrupt)
    }

    fn parse_known(body: &str) -> Result<Self, String> {
        let file: Lines = toml::from_str(body).map_err(|error| error.message().to_owned())?;
        let formed = match (file.cluster, file.disks) {
            (None, None) => None,
            (Some(cluster), Some(disks)) => {
                let mut known = BTreeMap::new();
                for (pod, disk) in disks {
                    known.insert(number(&pod)?, DiskId(hex(&disk)?));
                }
                let mut replaced = BTreeMap::new();
                for (pod, text) in file.replaced.unwrap_or_default() {
                    let (count, disk) = text.split_once(' ').ok_or_else(|| format!("{text:?} is no disk"))?;
                    let count = count.parse().map_err(|_| format!("{count:?} is no count"))?;
                    replaced.insert(number(&pod)?, Replacement { disk: DiskId(hex(disk)?), count });
                }
                Some(Formed { cluster: ClusterId(hex(&cluster)?), disks: known, replaced })
            }
            (Some(_), None) | (None, Some(_)) => return Err("cluster and disks go together".to_owned()),
        };
        let fixed = Terms::new(file.fixed.into_iter().collect());
        let identity = Self { pod: PodId(file.pod), disk: DiskId(hex(&file.disk)?), fixed, formed };
        if let Some(formed) = &identity.formed
            && (!formed.is_consistent() || formed.disk_of(identity.pod) != Some(identity.disk))
        {
            return Err("its cluster id, disks and disk do not go together".to_owned());
        }
        Ok(identity)
    }
}

const FILE: &str = "identity";
const FILE_TEMPORARY: &str = "identity.new";
const VERSION: u16 = 1;
const CHECKSUM: &str = "checksum = \"";

/// Why a file's text is no identity.
enum Unreadable {
    Version(u16),
    Corrupt(String),
}

#[derive(Deserialize)]
struct Versioned {
    version: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    #[serde(rename = "version")]
    _version: u16,
    pod: u8,
    disk: String,
    fixed: BTreeMap<String, String>,
    cluster: Option<String>,
    disks: Option<BTreeMap<String, String>>,
    replaced: Option<BTreeMap<String, String>>,
}

fn number(text: &str) -> Result<PodId, String> {
    text.parse().map(PodId).map_err(|_| format!("{text:?} is no pod number"))
}

fn hex(text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16).map_err(|_| format!("{text:?} is no id"))
}

fn holds_data(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(shards: &str) -> Terms {
        Terms::new(vec![("cluster.shards".to_owned(), shards.to_owned())])
    }

    struct Pod {
        directory: tempfile::TempDir,
        modules: Vec<PathBuf>,
    }

    impl Pod {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let modules = ["order", "stock", "payment"].map(|name| directory.path().join(name)).to_vec();
            Self { directory, modules }
        }
        fn load(&self) -> Result<Identity, IdentityError> {
            self.load_with("24")
        }
        fn load_with(&self, shards: &str) -> Result<Identity, IdentityError> {
            Identity::load(self.directory.path(), PodId(1), &self.modules, &fixed(shards), &Terms::default())
        }
        fn file(&self) -> PathBuf {
            self.directory.path().join(FILE)
        }
        fn fill_stores(&self) {
            for module in &self.modules {
                std::fs::create_dir_all(module).unwrap();
                std::fs::write(module.join("0.jnl"), "x").unwrap();
            }
        }
        fn form(&self) -> Identity {
            let mut identity = self.load().unwrap();
            let disks = [(PodId(0), DiskId(7)), (PodId(1), identity.disk)].into();
            identity.formed = Some(Formed::new(disks));
            self.fill_stores();
            identity.persist(self.directory.path()).unwrap();
            identity
        }
    }

    #[test]
    fn a_new_directory_draws_one_disk_id_and_keeps_it() {
        let (pod, other) = (Pod::new(), Pod::new());
        let drawn = pod.load().unwrap();
        assert_eq!(pod.load().unwrap(), drawn);
        assert_ne!(other.load().unwrap().disk, drawn.disk);
        assert_eq!(drawn.formed, None);
    }

    #[test]
    fn what_has_formed_comes_back() {
        let pod = Pod::new();
        let formed = pod.form();
        assert_eq!(pod.load().unwrap(), formed);
    }

    #[test]
    fn a_disk_that_took_the_place_of_a_lost_one_comes_back() {
        let pod = Pod::new();
        let mut identity = pod.form();
        let formed = identity.formed.as_mut().unwrap();
        identity.disk = DiskId(77);
        formed.replaced.insert(identity.pod, Replacement { disk: DiskId(77), count: 2 });
        identity.persist(pod.directory.path()).unwrap();
        assert_eq!(pod.load().unwrap(), identity);
        assert!(identity.formed.unwrap().is_consistent(), "the cluster keeps its name");
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let pod = Pod::new();
        pod.form();
        let good = std::fs::read(pod.file()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            std::fs::write(pod.file(), &bad).unwrap();
            assert!(matches!(pod.load(), Err(IdentityError::Corrupt { .. })), "byte {at}");
            std::fs::write(pod.file(), &good[..at]).unwrap();
            assert!(matches!(pod.load(), Err(IdentityError::Corrupt { .. })), "cut at {at}");
        }
    }

    #[test]
    fn stores_without_an_identity_are_refused() {
        let pod = Pod::new();
        pod.form();
        std::fs::remove_file(pod.file()).unwrap();
        assert!(matches!(pod.load(), Err(IdentityError::Missing { .. })));
    }

    #[test]
    fn an_identity_without_its_stores_is_refused() {
        let pod = Pod::new();
        pod.form();
        std::fs::remove_dir_all(&pod.modules[2]).unwrap();
        assert!(matches!(pod.load(), Err(IdentityError::DataMissing { .. })));
    }

    #[test]
    fn settings_are_fixed_once_the_cluster_has_formed() {
        let pod = Pod::new();
        pod.load_with("12").unwrap();
        pod.load_with("24").unwrap();
        pod.form();
        let error = pod.load_with("12").unwrap_err();
        assert!(matches!(error, IdentityError::Fixed { .. }));
        assert!(error.to_string().contains("cluster.shards is 24 there and 12 here"), "{error}");
        pod.load_with("24").unwrap();
    }

    #[test]
    fn a_file_from_before_a_setting_was_fixed_has_it_as_it_then_was() {
        let pod = Pod::new();
        pod.form();
        let with = |pods: &str| {
            let terms = |pods: &str| ("stock.pods".to_owned(), pods.to_owned());
            let fixed = Terms::new(vec![("cluster.shards".to_owned(), "24".to_owned()), terms(pods)]);
            let before = Terms::new(vec![terms("3")]);
            Identity::load(pod.directory.path(), PodId(1), &pod.modules, &fixed, &before)
        };
        assert!(with("2").unwrap_err().to_string().contains("stock.pods is 3 there and 2 here"));
        with("3").unwrap();
        let text = std::fs::read_to_string(pod.file()).unwrap();
        assert!(text.contains("\"stock.pods\" = \"3\""), "{text}");
    }

    #[test]
    fn another_pods_directory_is_refused() {
        let pod = Pod::new();
        pod.form();
        let (path, fixed) = (pod.directory.path(), fixed("24"));
        let loaded = Identity::load(path, PodId(2), &pod.modules, &fixed, &Terms::default());
        assert!(matches!(loaded, Err(IdentityError::OtherPod { .. })));
    }

    #[test]
    fn the_cluster_id_depends_on_all_disks_alone() {
        let vector = |a, b| Formed::new([(PodId(0), DiskId(a)), (PodId(1), DiskId(b))].into());
        assert_eq!(vector(1, 2).cluster, vector(1, 2).cluster);
        assert_ne!(vector(1, 2).cluster, vector(1, 3).cluster);
        assert_ne!(vector(1, 2).cluster, vector(2, 1).cluster);
    }
}
