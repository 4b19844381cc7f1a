//! Journals as fjall seals them, at 64 MB: none may be missing or hurt.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic, in its helpers too")]

use kassa_storage::{Batch, OpenError, Options, Store, check};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

#[test]
fn a_sealed_journal_may_not_be_missing_or_hurt() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let options = Options::default;
    let journals = || {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut numbers: Vec<u64> =
            names.filter_map(|name| name.strip_suffix(".jnl")?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    };
    // One small change of the tables stays in memory, and with it the first journal.
    let store = Store::open(dir, options()).unwrap();
    let change: (u16, &[u8], Option<&[u8]>) = (1, b"key", Some(b"value"));
    let record = vec![0x5a; 1024 * 1024];
    let mut n = 0;
    while journals().len() < 2 || n % 5 != 0 {
        let tables = (n == 0).then_some(change);
        store
            .commit(Batch { log: Some((n, &record[..])), tables, cut_below: Some(n), sync: n % 5 == 0 })
            .unwrap();
        n += 1;
    }
    drop(store);
    let whole = || {
        let report = check(dir).unwrap();
        assert_eq!(report.log_positions, Some((n - 1, n - 1)));
        assert_eq!(report.shards[&1].records, 1);
        assert_eq!(report.journals, 2);
    };
    whole();
    let names = journals().into_iter().map(|number| dir.join(format!("{number}.jnl"))).collect::<Vec<_>>();
    let aside = dir.with_extension("aside");
    for path in &names {
        fs::rename(path, &aside).unwrap();
        let error = Store::open(dir, options()).err().expect("a journal is missing");
        assert!(matches!(error, OpenError::Damaged(_)), "{error}");
        fs::rename(&aside, path).unwrap();
    }
    let sealed = OpenOptions::new().read(true).write(true).open(&names[0]).unwrap();
    for at in [0, 5, 100, 10_000_000, 63_000_000] {
        let mut byte = [0];
        sealed.read_exact_at(&mut byte, at).unwrap();
        sealed.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
        let error = Store::open(dir, options()).err().expect("a byte is flipped");
        assert!(matches!(error, OpenError::Damaged(_)), "{error}");
        assert!(error.to_string().contains(names[0].to_str().unwrap()), "{error}");
        assert!(at < 100 || error.to_string().contains("had been closed"), "{error}");
        sealed.write_all_at(&byte, at).unwrap();
    }
    whole();
    let store = Store::open(dir, options()).unwrap();
    assert_eq!(store.get(1, b"key").unwrap().unwrap(), "value");
}
