//! A pod's configuration: a TOML file, the environment, flags; later ones win.
//!
//! Whatever is unknown, mistyped or out of range is refused with its place: a key that is silently
//! left out is a setting that somebody believes in.

mod keys;

use kassa_protocols::ids::PodId;
use keys::{KEYS, Key, Kind, PODS_MAX};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where values come from; later fields win.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// The file's path, for messages, and its text.
    pub file: Option<(&'a Path, &'a str)>,
    /// All of the environment. What is no key is not ours: an orchestrator sets `KASSA_…` names of its
    /// own for a service of that name.
    pub environment: Vec<(String, String)>,
    /// Key and value, as flags gave them.
    pub flags: Vec<(String, String)>,
}

/// A whole and checked configuration.
#[derive(Debug)]
pub struct Config {
    pub pod: PodId,
    /// Every pod's fabric address, this one's included.
    pub peers: BTreeMap<PodId, String>,
    pub http: SocketAddr,
    pub fabric: SocketAddr,
    pub data: PathBuf,
    pub write_quorum: u64,
    /// How many pods hold payment with orders, and stock.
    pub payment_pods: usize,
    pub stock_pods: usize,
    values: BTreeMap<&'static str, Value>,
}

/// One line: where, which key, what is wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    place: String,
    what: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    Text(String),
    Peers(BTreeMap<PodId, String>),
}

impl Config {
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn read(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let mut found = Found::default();
        if let Some((path, text)) = sources.file {
            found.read_file(path, text)?;
        }
        for key in KEYS {
            let name = variable(key);
            if let Some((_, text)) = sources.environment.iter().find(|(found, _)| *found == name) {
                found.set(key, parse(key, text), name)?;
            }
        }
        for (path, text) in &sources.flags {
            let place = format!("--set {path}");
            let key = find(path).ok_or_else(|| unknown(&place, path))?;
            found.set(key, parse(key, text), place)?;
        }
        found.check()
    }

    /// The number under `path`.
    ///
    /// # Panics
    /// If no key has that path, or it is no number.
    #[must_use]
    pub fn number(&self, path: &str) -> u64 {
        match self.values.get(path) {
            Some(Value::Number(number)) => *number,
            other => panic!("{path} is no number: {other:?}"),
        }
    }

    /// The same as a duration, for a key in milliseconds.
    ///
    /// # Panics
    /// As [`Config::number`].
    #[must_use]
    pub fn duration(&self, path: &str) -> Duration {
        assert!(path.ends_with("_ms"), "{path} is in milliseconds");
        Duration::from_millis(self.number(path))
    }

    /// The same as a count of things in memory.
    ///
    /// # Panics
    /// As [`Config::number`].
    #[must_use]
    pub fn count(&self, path: &str) -> usize {
        usize::try_from(self.number(path)).expect("counts are bounded far below this")
    }

    /// The text under `path`.
    ///
    /// # Panics
    /// If no key has that path, or it is no text.
    #[must_use]
    pub fn text(&self, path: &str) -> &str {
        match self.values.get(path) {
            Some(Value::Text(text)) => text,
            other => panic!("{path} is no text: {other:?}"),
        }
    }
}

/// What `--print-config` says: every key with its default, unit and meaning, as a file to start from.
#[must_use]
pub fn print() -> String {
    let mut text = "# Every key of a pod's configuration, with its default. Any can also be set in the\n\
                    # environment (KASSA_TIMING_ELECTION_MS) or by a flag (--set timing.election_ms=250).\n"
        .to_owned();
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if of != section {
            section = of;
            let _ = write!(text, "\n[{of}]\n");
        }
        let unit = if key.unit.is_empty() { String::new() } else { format!("{} ", key.unit) };
        let bounds = match &key.kind {
            Kind::Number { min, max, .. } => format!(" ({min} to {max})"),
            Kind::Choice { of } => format!(" ({})", of.join(" or ")),
            Kind::Address { .. } | Kind::Path | Kind::OrAll { .. } | Kind::Peers => String::new(),
        };
        let _ = writeln!(text, "# {unit}{}{bounds}", key.meaning);
        let _ = match (&key.kind, default(key)) {
            (_, Some(Value::Number(number))) => writeln!(text, "{name} = {number}"),
            (_, Some(Value::Text(value))) => writeln!(text, "{name} = {value:?}"),
            (Kind::Peers, _) => {
                writeln!(text, "# {name} = [{{ pod = 0, fabric = \"127.0.0.1:8200\" }}]   (must be set)")
            }
            (_, Some(Value::Peers(_)) | None) => writeln!(text, "# {name} =   (must be set)"),
        };
    }
    text
}

#[derive(Debug, Default)]
struct Found {
    values: BTreeMap<&'static str, (Value, String)>,
}

impl Found {
    fn set(
        &mut self,
        key: &'static Key,
        value: Result<Value, String>,
        place: String,
    ) -> Result<(), ConfigError> {
        match value {
            Ok(value) => {
                self.values.insert(key.path, (value, place));
                Ok(())
            }
            Err(what) => Err(ConfigError { place, what: format!("`{}`: {what}", key.path) }),
        }
    }

    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let place = |at: usize| {
            let before = text.get(..at).unwrap_or(text);
            format!("{}, line {}", path.display(), before.matches('\n').count() + 1)
        };
        let table = DeTable::parse(text).map_err(|error| ConfigError {
            place: place(error.span().map_or(0, |span| span.start)),
            what: error.message().replace('\n', ", "),
        })?;
        for (name, value) in table.get_ref() {
            let place_of_name = place(name.span().start);
            let is_section = KEYS.iter().any(|key| key.path.split('.').next() == Some(name.get_ref()))
                && find(name.get_ref()).is_none();
            let Some(section) = value.get_ref().as_table().filter(|_| is_section) else {
                let key = find(name.get_ref()).ok_or_else(|| unknown(&place_of_name, name.get_ref()))?;
                self.set(key, from_toml(key, value), place_of_name)?;
                continue;
            };
            for (inner, value) in section {
                let path = format!("{}.{}", name.get_ref(), inner.get_ref());
                let place = place(inner.span().start);
                let key = find(&path).ok_or_else(|| unknown(&place, &path))?;
                self.set(key, from_toml(key, value), place)?;
            }
        }
        Ok(())
    }

    fn place(&self, path: &str) -> String {
        self.values.get(path).map_or_else(|| format!("`{path}`"), |(_, place)| format!("{place}: `{path}`"))
    }

    fn check(mut self) -> Result<Config, ConfigError> {
        let majority = !self.values.contains_key("stock.write_quorum");
        for key in KEYS {
            if !self.values.contains_key(key.path)
                && let Some(value) = default(key)
            {
                self.values.insert(key.path, (value, "by default".to_owned()));
            }
        }
        let refuse = |found: &Self, path: &str, what: String| ConfigError { place: found.place(path), what };
        if let Some(key) = KEYS.iter().find(|key| !self.values.contains_key(key.path)) {
            let what = format!("it must be set: in the file, by {}, or by --set", variable(key));
            return Err(refuse(&self, key.path, what));
        }
        let number = |path: &str| match &self.values[path].0 {
            Value::Number(number) => *number,
            Value::Text(_) | Value::Peers(_) => unreachable!("{path} is kept as a number"),
        };
        let address = |path: &str| match &self.values[path].0 {
            Value::Text(text) => text.parse::<SocketAddr>().expect("checked when it was read"),
            Value::Number(_) | Value::Peers(_) => unreachable!("{path} is kept as text"),
        };
        let pod = PodId(u8::try_from(number("pod")).expect("bounded below 64"));
        let Value::Peers(peers) = self.values["peers"].0.clone() else { unreachable!("kept as peers") };
        if !peers.contains_key(&pod) {
            return Err(refuse(&self, "peers", format!("this pod ({}) must be among them", pod.0)));
        }
        let replicas = number("cluster.replicas");
        if replicas > peers.len() as u64 {
            let what = format!("{replicas} replicas need as many pods, and `peers` has {}", peers.len());
            return Err(refuse(&self, "cluster.replicas", what));
        }
        let or_all = |path: &str, all: u64| match &self.values[path].0 {
            Value::Number(number) => *number,
            Value::Text(_) | Value::Peers(_) => all,
        };
        let write_quorum = if majority { replicas / 2 + 1 } else { or_all("stock.write_quorum", replicas) };
        if write_quorum > replicas || write_quorum * 2 <= replicas {
            let what = format!(
                "{write_quorum} of {replicas} replicas: it must be more than half of them, and at most all"
            );
            return Err(refuse(&self, "stock.write_quorum", what));
        }
        let all = peers.len() as u64;
        let pods = ["payment.pods", "stock.pods"].map(|path| (path, or_all(path, all)));
        if let Some((path, pods)) = pods.into_iter().find(|(_, pods)| *pods < replicas || *pods > all) {
            let what = format!(
                "{pods} of {all} pods: at least {replicas} must hold the module, as many as `cluster.replicas`, \
                 and at most all"
            );
            return Err(refuse(&self, path, what));
        }
        let [payment_pods, stock_pods] =
            pods.map(|(_, pods)| usize::try_from(pods).expect("at most all pods"));
        if number("timing.election_ms") < 2 * number("timing.heartbeat_ms") {
            let what = "it must be at least twice `timing.heartbeat_ms`, or healthy leaders are deposed";
            return Err(refuse(&self, "timing.election_ms", what.to_owned()));
        }
        if number("timing.dial_max_ms") < number("timing.dial_min_ms") {
            let what = "it must not be less than `timing.dial_min_ms`".to_owned();
            return Err(refuse(&self, "timing.dial_max_ms", what));
        }
        let fabric = address("fabric");
        if !fabric.ip().is_loopback() {
            let what =
                format!("{fabric} is not on loopback, and links between pods cannot be authenticated yet");
            return Err(refuse(&self, "fabric", what));
        }
        let http = address("http");
        let Value::Text(data) = &self.values["data"].0 else { unreachable!("kept as text") };
        let data = PathBuf::from(data);
        let values = self.values.into_iter().map(|(path, (value, _))| (path, value)).collect();
        Ok(Config { pod, peers, http, fabric, data, write_quorum, payment_pods, stock_pods, values })
    }
}

fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

fn unknown(place: &str, path: &str) -> ConfigError {
    let what = format!("`{path}` is no key; `kassa serve --print-config` shows all of them");
    ConfigError { place: place.to_owned(), what }
}

/// The name of a key's environment variable.
fn variable(key: &Key) -> String {
    format!("KASSA_{}", key.path.replace('.', "_").to_uppercase())
}

fn default(key: &Key) -> Option<Value> {
    match &key.kind {
        Kind::Number { default, .. } => default.map(Value::Number),
        Kind::Address { default } => Some(Value::Text((*default).to_owned())),
        Kind::Choice { of } => of.first().map(|first| Value::Text((*first).to_owned())),
        Kind::OrAll { default } => Some(default.map_or_else(|| Value::Text("all".to_owned()), Value::Number)),
        Kind::Path | Kind::Peers => None,
    }
}

/// A value as the environment and flags give it.
fn parse(key: &Key, text: &str) -> Result<Value, String> {
    match &key.kind {
        Kind::Number { min, max, .. } => {
            let number: u64 = text.parse().map_err(|_| format!("{text:?} is no whole number"))?;
            if number < *min || number > *max {
                return Err(format!("{number} is out of range: {min} to {max}"));
            }
            Ok(Value::Number(number))
        }
        Kind::Address { .. } => match text.parse::<SocketAddr>() {
            Ok(_) => Ok(Value::Text(text.to_owned())),
            Err(_) => Err(format!("{text:?} is no address to listen on, such as 127.0.0.1:8000")),
        },
        Kind::Path if text.is_empty() => Err("it is empty".to_owned()),
        Kind::Path => Ok(Value::Text(text.to_owned())),
        Kind::Choice { of } if of.contains(&text) => Ok(Value::Text(text.to_owned())),
        Kind::Choice { of } => Err(format!("{text:?} is not one of {}", of.join(", "))),
        Kind::OrAll { .. } if text == "all" => Ok(Value::Text(text.to_owned())),
        Kind::OrAll { .. } => match text.parse() {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) => Err(format!("{text:?} is neither a number of {} nor \"all\"", key.unit)),
        },
        Kind::Peers => {
            let mut peers = BTreeMap::new();
            for part in text.split(',') {
                let (pod, address) = part.split_once('=').unwrap_or((part, ""));
                add_peer(&mut peers, pod, address)?;
            }
            Ok(Value::Peers(peers))
        }
    }
}

fn add_peer(peers: &mut BTreeMap<PodId, String>, pod: &str, address: &str) -> Result<(), String> {
    let number: u8 = match pod.trim().parse() {
        Ok(number) if u64::from(number) < PODS_MAX => number,
        Ok(_) | Err(_) => return Err(format!("{pod:?} is no pod number: 0 to {}", PODS_MAX - 1)),
    };
    let address = address.trim();
    let is_address = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if !is_address {
        return Err(format!("{address:?} is no address of pod {number}, such as 127.0.0.1:8200"));
    }
    match peers.insert(PodId(number), address.to_owned()) {
        None => Ok(()),
        Some(_) => Err(format!("pod {number} is named twice")),
    }
}

/// A value as the file gives it.
fn from_toml(key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    match (&key.kind, value.get_ref()) {
        (Kind::Number { .. } | Kind::OrAll { .. }, DeValue::Integer(integer)) if integer.radix() == 10 => {
            parse(key, integer.as_str())
        }
        (Kind::Number { .. }, other) => Err(format!("a {} is no whole number", other.type_str())),
        (
            Kind::Address { .. } | Kind::Path | Kind::Choice { .. } | Kind::OrAll { .. } | Kind::Peers,
            DeValue::String(text),
        ) => parse(key, text),
        (Kind::Peers, DeValue::Array(entries)) => {
            let mut peers = BTreeMap::new();
            for entry in entries {
                let table = entry.get_ref().as_table().ok_or(ENTRY)?;
                let value = |name: &str| table.iter().find(|(key, _)| key.get_ref() == name);
                let pod = value("pod").and_then(|(_, pod)| pod.get_ref().as_integer()).ok_or(ENTRY)?;
                let fabric =
                    value("fabric").and_then(|(_, fabric)| fabric.get_ref().as_str()).ok_or(ENTRY)?;
                if table.len() > 2 {
                    return Err(ENTRY.to_owned());
                }
                add_peer(&mut peers, pod.as_str(), fabric)?;
            }
            Ok(Value::Peers(peers))
        }
        (Kind::Peers, _) => Err(ENTRY.to_owned()),
        (Kind::OrAll { .. }, _) => Err(format!("neither a number of {} nor \"all\"", key.unit)),
        (Kind::Address { .. } | Kind::Path | Kind::Choice { .. }, other) => {
            Err(format!("a {} is no text", other.type_str()))
        }
    }
}

const ENTRY: &str = "each entry is { pod = 0, fabric = \"127.0.0.1:8200\" }";

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Peers(peers) => {
                let numbers: Vec<String> = peers.keys().map(|pod| pod.0.to_string()).collect();
                f.write_str(&numbers.join(" "))
            }
        }
    }
}

impl Config {
    /// The value under `path`, as the pods of a cluster compare it.
    ///
    /// # Panics
    /// If no key has that path.
    #[must_use]
    pub fn shown(&self, path: &str) -> String {
        self.values.get(path).unwrap_or_else(|| panic!("{path} is no key")).to_string()
    }
}

#[cfg(test)]
mod tests;
