//! Where a running cluster is: what `up` wrote down, unless `--url` says otherwise.

use super::http::Target;
use super::up::layout::write_whole;
use std::path::Path;

/// In the data directory while `up` runs: the URL in front, then one a pod.
const FILE: &str = "urls";
/// The data directory that commands look into, the default of `up`.
const DATA: &str = "kassa-data";
/// Where a cluster is when nothing says so.
const DEFAULT: &str = "http://127.0.0.1:8000";

/// Writes down where the cluster is.
///
/// # Errors
/// Where the directory cannot be written.
pub fn write(data: &Path, shop: &str, pods: &[String]) -> anyhow::Result<()> {
    write_whole(&data.join(FILE), &format!("{shop}\n{}\n", pods.join("\n")))
}

/// The cluster has stopped.
pub fn remove(data: &Path) {
    // It may never have been written.
    let _ = std::fs::remove_file(data.join(FILE));
}

/// Where requests of clients go: to all of `urls`, else to the front of the cluster in `./kassa-data`.
///
/// # Errors
/// A URL that is none.
pub fn shop(urls: &[String]) -> anyhow::Result<Vec<Target>> {
    let known = known();
    targets(urls, known.first().map_or(&[], std::slice::from_ref))
}

/// Every pod by itself.
///
/// # Errors
/// A URL that is none.
pub fn pods(urls: &[String]) -> anyhow::Result<Vec<Target>> {
    let known = known();
    targets(urls, known.get(1..).unwrap_or_default())
}

fn targets(urls: &[String], known: &[String]) -> anyhow::Result<Vec<Target>> {
    let default = [DEFAULT.to_owned()];
    let urls = [urls, known, &default].into_iter().find(|urls| !urls.is_empty()).unwrap_or_default();
    Ok(urls.iter().map(|url| Target::parse(url)).collect::<Result<_, _>>()?)
}

fn known() -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(DATA).join(FILE)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
