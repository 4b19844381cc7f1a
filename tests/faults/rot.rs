//! Rot: of a real pod's directory any byte flipped, any file missing, any tail cut off. It is refused by
//! name, or served just as it was; `kassa check` and the start agree.
//!
//! Most of it runs what they run, without a process each: thousands of directories are looked at here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kassa::runtime::stores::SHARDS_MAX;
use kassa_storage::{OpenError, Options, Store};

use crate::pods::{PATIENCE, Plan, Pod, field, good, kassa, scratch, told};

const STORES: [&str; 3] = ["order", "stock", "payment"];
/// Files up to this are flipped byte by byte.
const SMALL_BYTES: usize = 700;
/// Bytes of a larger file that are flipped: evenly spread, and at random from a fixed seed.
const SPREAD: usize = 20;
const RANDOM: u64 = 12;

/// What a store holds.
#[derive(Debug, PartialEq, Eq)]
struct Model {
    log: BTreeMap<u64, Vec<u8>>,
    tables: BTreeMap<(u16, Vec<u8>), Vec<u8>>,
}

impl Model {
    fn of(store: &Store) -> Self {
        let log = store.log().map(Result::unwrap).map(|(at, bytes)| (at, bytes.to_vec())).collect();
        let mut tables = BTreeMap::new();
        // All shards of a module, and that of the cluster group.
        for shard in (0..SHARDS_MAX).chain([u16::MAX - 1]) {
            for (key, value) in store.scan(shard, b"", None, usize::MAX).unwrap() {
                tables.insert((shard, key.to_vec()), value.to_vec());
            }
        }
        Self { log, tables }
    }
}

fn options() -> Options {
    Options { must_exist: true, ..Options::default() }
}

fn open(dir: &Path) -> Result<Model, OpenError> {
    Store::open(dir, options()).map(|store| Model::of(&store))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A directory in memory: of each file its bytes without the zeros at the end, and its length.
struct Image(Vec<(PathBuf, Vec<u8>, u64)>);

impl Image {
    fn of(dir: &Path) -> Self {
        let files = files(dir).into_iter().map(|path| {
            let file = File::open(&path).unwrap();
            let len = file.metadata().unwrap().len();
            // Journals are made 64 MiB long beforehand.
            let end =
                if len == 0 { 0 } else { rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap() };
            let mut bytes = vec![0; usize::try_from(end.min(len)).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1));
            (path.strip_prefix(dir).unwrap().to_owned(), bytes, len)
        });
        Self(files.collect())
    }

    fn restore(&self, dir: &Path) {
        let _ = fs::remove_dir_all(dir);
        for (path, bytes, len) in &self.0 {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, bytes, *len);
        }
    }

    /// The newest journal.
    fn journal(&self) -> &(PathBuf, Vec<u8>, u64) {
        let journals = self.0.iter().filter(|(path, ..)| path.extension().is_some_and(|end| end == "jnl"));
        journals.max_by_key(|(path, ..)| path.clone()).unwrap()
    }
}

fn write(path: &Path, bytes: &[u8], len: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(len).unwrap();
}

/// A pod that is a cluster by itself, with so much in it that its stores have table files.
fn load(plan: &Plan) -> Pod {
    let pod = plan.start(0);
    pod.wait_ready();
    let port = plan.http(0);
    good(port, "POST", "/stock/batch_init/200/1000000/1");
    good(port, "POST", "/payment/batch_init/5/1000000");
    let has_tables = |store: &str, keyspaces: &[u64]| {
        let tables = |keyspace| plan.data(0).join(format!("{store}/keyspaces/{keyspace}/tables"));
        keyspaces.iter().any(|&keyspace| fs::read_dir(tables(keyspace)).unwrap().next().is_some())
    };
    let mut order = String::new();
    let begun = Instant::now();
    for n in 0.. {
        if has_tables("stock", &[1, 2]) && has_tables("payment", &[1, 2]) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no table files after {n} checkouts of 200 lines");
        if n % 25 == 0 {
            // What a payment remembers of an order grows with it.
            order = field(&good(port, "POST", &format!("/orders/create/{}", n % 5)), "order_id");
            for item in 0..200 {
                good(port, "POST", &format!("/orders/addItem/{order}/{item}/1"));
            }
        }
        good(port, "POST", &format!("/orders/checkout/{order}"));
        good(port, "POST", &format!("/payment/cancel/{}/{order}", n / 25 * 25 % 5));
    }
    pod
}

/// Where a file is flipped: everywhere, or at its ends, spread evenly, and at random.
fn places(len: usize, seed: u64) -> BTreeSet<usize> {
    if len <= SMALL_BYTES {
        return (0..len).collect();
    }
    let random = (0..RANDOM).map(|n| {
        let mixed = (seed * RANDOM + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(mixed.rotate_left(29) % len as u64).unwrap()
    });
    let spread = (0..SPREAD).map(|n| n * len / SPREAD);
    spread.chain(random).chain(0..8).chain(len - 8..len).collect()
}

/// Whether a file is none that the newest version of its keyspace names, and that fjall has not deleted yet.
fn may_be_left_over(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.starts_with('v') && name != "version" || path.parent().unwrap().ends_with("tables")
}

/// What an error says of a file: of `current`, which names another and its checksum, only that the two do not
/// go together.
fn named(path: &Path) -> &Path {
    if path.ends_with("current") { path.parent().unwrap() } else { path }
}

/// Every store of `image` with one thing done to one of its files at a time.
struct Harm<'a> {
    image: &'a Image,
    dir: PathBuf,
    whole: Model,
    refused: usize,
}

impl<'a> Harm<'a> {
    fn new(image: &'a Image, dir: PathBuf) -> Self {
        image.restore(&dir);
        let whole = open(&dir).unwrap();
        image.restore(&dir);
        Self { image, dir, whole, refused: 0 }
    }

    /// Opens the store as it now is: refused, by the name of `path`, or just as it was before.
    fn is_refused(&mut self, path: &Path, what: &str) -> bool {
        let Some(error) = self.error(what) else { return false };
        assert!(error.contains(self.dir.join(named(path)).to_str().unwrap()), "{what}: {error}");
        true
    }

    fn error(&mut self, what: &str) -> Option<String> {
        match open(&self.dir) {
            Ok(model) => {
                assert!(model == self.whole, "{what}: it is served, and is not what it was");
                None
            }
            Err(error) => {
                self.refused += 1;
                Some(error.to_string())
            }
        }
    }

    fn flip_all(&mut self) {
        for (seed, (path, bytes, len)) in (0..).zip(&self.image.0) {
            let zeros = usize::try_from(*len).unwrap() - bytes.len();
            // Behind the last batch of a journal there is nothing yet.
            let behind = [0, 5_000, 1 << 20].into_iter().filter(|at| *at < zeros).map(|at| bytes.len() + at);
            let mut harmless = 0;
            for at in places(bytes.len(), seed).into_iter().chain(behind) {
                let old = bytes.get(at).copied().unwrap_or(0);
                let flip = [0x01, 0x80, 0xff, 0x10][at % 4];
                let file = OpenOptions::new().write(true).open(self.dir.join(path)).unwrap();
                file.write_all_at(&[old ^ flip], at as u64).unwrap();
                let what = format!("{} byte {at} of {} ^ {flip:#x}", path.display(), bytes.len());
                if self.is_refused(path, &what) {
                    file.write_all_at(&[old], at as u64).unwrap();
                    continue;
                }
                assert!(at >= bytes.len() || may_be_left_over(path), "{what}: it does not matter");
                self.image.restore(&self.dir);
                harmless += usize::from(at < bytes.len());
                if harmless == 2 {
                    break;
                }
            }
        }
    }

    fn remove_each(&mut self) {
        for (path, ..) in &self.image.0 {
            fs::remove_file(self.dir.join(path)).unwrap();
            let refused = self.is_refused(path, &format!("{} missing", path.display()));
            assert!(refused || may_be_left_over(path), "{}: it is not missed", path.display());
            self.image.restore(&self.dir);
        }
    }

    /// A pod that ended in order has noted where its journal ends.
    fn cut_everywhere(&mut self) {
        let (path, bytes, _) = self.image.journal();
        for kept in places(bytes.len(), 7) {
            write(&self.dir.join(path), &bytes[..kept], kept as u64);
            let what = format!("{} cut to {kept}", path.display());
            let error = self.error(&what).expect(&what);
            // Which journal it was is not known once none has a batch any more.
            assert!(error.contains(self.dir.to_str().unwrap()), "{what}: {error}");
        }
        write(&self.dir.join(path), bytes, bytes.len() as u64);
        assert!(!self.is_refused(path, "only zeros cut off"));
        self.image.restore(&self.dir);
    }
}

#[test]
fn rot_in_a_pod_that_has_ended_is_refused_by_name() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 1, &["--set", "limits.log_bytes_max=65536"]);
    assert_eq!(load(&plan).terminate().0, Some(0));
    let data = plan.data(0);
    std::thread::scope(|scope| {
        for store in STORES {
            let (data, aside) = (&data, dir.path().join("aside"));
            scope.spawn(move || {
                let image = Image::of(&data.join(store));
                let mut harm = Harm::new(&image, aside.join(store));
                harm.flip_all();
                harm.remove_each();
                harm.cut_everywhere();
                assert!(harm.refused > 500, "{store}: {}", harm.refused);
            });
        }
    });
    the_program_says_the_same(&plan);
}

/// One byte of each kind of file, and each such file missing: `kassa check` ends with 1 and the start with 3,
/// and both name the file.
fn the_program_says_the_same(plan: &Plan) {
    let data = plan.data(0);
    let check = || told(kassa().arg("check").arg(&data));
    let start = || told(&mut plan.command(0));
    let current = |keyspace: &str| {
        let bytes = fs::read(data.join(keyspace).join("current")).unwrap();
        u64::from_le_bytes(*bytes.first_chunk().unwrap())
    };
    let version = format!("payment/keyspaces/2/v{}", current("payment/keyspaces/2"));
    let newest = Image::of(&data.join("payment")).journal().0.clone();
    let files = [
        "identity".to_owned(),
        "order/kassa".to_owned(),
        "stock/version".to_owned(),
        "payment/keyspaces/2/current".to_owned(),
        version,
        format!("payment/{}", newest.display()),
    ];
    assert_eq!(check(), (Some(0), String::new()));
    let stores = || STORES.map(|store| Image::of(&data.join(store)).0);
    let whole = stores();
    for file in &files {
        let path = data.join(file);
        let bytes = fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        flipped[used / 2] ^= 0x20;
        for (harm, what) in [(Some(flipped), "flipped"), (None, "missing")] {
            match harm {
                Some(flipped) => fs::write(&path, flipped).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            for (code, (ended, said)) in [(1, check()), (3, start())] {
                assert_eq!(ended, Some(code), "{file} {what}: {said}");
                let error: Vec<&str> = said.lines().filter(|line| line.starts_with("kassa: ")).collect();
                assert!(
                    error.len() == 1 && error[0].contains(named(&path).to_str().unwrap()),
                    "{file} {what}: {said}"
                );
            }
            fs::write(&path, &bytes).unwrap();
            assert!(stores() == whole, "{file} {what}: what was refused has changed something");
        }
    }
    // What only tells people something may be anything.
    fs::write(data.join("pid"), "?").unwrap();
    assert_eq!(check(), (Some(0), String::new()));
    let pod = plan.start(0);
    pod.wait_ready();
    assert_eq!(field(&good(plan.http(0), "GET", "/payment/find_user/4"), "credit"), "1000000");
    assert_eq!(pod.terminate().0, Some(0));
}

#[test]
fn the_tail_of_a_pod_that_was_killed_may_be_torn() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 1, &[]);
    let mut pod = plan.start(0);
    pod.wait_ready();
    let port = plan.http(0);
    good(port, "POST", "/payment/batch_init/5/1000");
    for _ in 0..20 {
        good(port, "POST", "/payment/add_funds/3/1");
    }
    pod.kill();
    let image = Image::of(&plan.data(0).join("payment"));
    let store = dir.path().join("aside");
    image.restore(&store);
    let whole = open(&store).unwrap();
    let (path, bytes, len) = image.journal();
    let mut lengths = BTreeSet::new();
    for kept in bytes.len() - 600..=bytes.len() {
        // The rest of the file is gone, or was never written.
        for len in [kept as u64, *len] {
            image.restore(&store);
            write(&store.join(path), &bytes[..kept], len);
            let model = open(&store).unwrap_or_else(|error| panic!("cut to {kept}: {error}"));
            let kept_log: Vec<_> = whole.log.iter().take(model.log.len()).collect();
            assert!(model.log.iter().eq(kept_log), "cut to {kept}: what is left is not the beginning");
            lengths.insert(model.log.len());
        }
    }
    // Batches went one by one, the last of them last.
    assert!(lengths.len() > 1 && lengths.last() == Some(&whole.log.len()), "{lengths:?}");
    assert_eq!(lengths.len(), lengths.last().unwrap() - lengths.first().unwrap() + 1, "{lengths:?}");

    // And the pod goes on from there: the sum that was torn is not there, all before it is.
    write(&plan.data(0).join("payment").join(path), &bytes[..bytes.len() - 1], *len);
    let pod = plan.start(0);
    pod.wait_ready();
    assert_eq!(pod.lines_with("that a crash tore; nothing there was acknowledged"), 1, "{:#?}", pod.lines());
    let credit: u64 = field(&good(port, "GET", "/payment/find_user/3"), "credit").parse().unwrap();
    assert!((1_019..=1_020).contains(&credit), "{credit}");
    assert_eq!(pod.terminate().0, Some(0));
}
