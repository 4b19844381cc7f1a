//! Many clients at once, each asking until it knows.
//!
//! An answer of 429 or 503 means that nothing was done, and 504 or a broken connection that the outcome is
//! open; after either, the same request with the same key is safe and in the end tells. So every outcome
//! here is one that a server vouched for, or [`Told::Unknown`] when time ran out.

use super::fail;
use super::http::{Broken, Connection, Kept, Target};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A request is repeated for as long as this before its outcome counts as unknown.
const KNOW_WITHIN: Duration = Duration::from_secs(60);
/// Between two repeats of one request, so that a cluster without a majority is not hammered.
const REPEAT_AFTER: Duration = Duration::from_millis(50);

/// Whether there is anything at all to ask. A cluster that starts or fails over has this long.
const REACH_WITHIN: Duration = Duration::from_secs(3);

/// Waits until some target answers something.
///
/// # Errors
/// Where none does.
pub async fn reach(targets: &[Target]) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        for target in targets {
            let request = target.request("GET", "/healthz", None);
            let mut connection = Connection::new(target);
            let broken = match tokio::time::timeout(REACH_WITHIN, connection.ask(&request)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(broken)) => broken,
                Err(_) => Broken::TimedOut,
            };
            if started.elapsed() > REACH_WITHIN {
                return Err(fail::impossible(format!(
                    "no cluster at {}: {broken}\nstart one with `kassa up`, or say where it is with --url",
                    target.url()
                ))
                .into());
            }
        }
        tokio::time::sleep(REPEAT_AFTER).await;
    }
}

/// One request of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub key: Option<String>,
}

impl Ask {
    #[must_use]
    pub fn get(path: String) -> Self {
        Self { method: "GET", path, key: None }
    }
    #[must_use]
    pub fn post(path: String, key: String) -> Self {
        Self { method: "POST", path, key: Some(key) }
    }
}

/// What a client learned in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Answer(Kept),
    /// No outcome was learned; the last thing that was heard.
    Unknown(String),
}

/// Asks everything, `clients` at a time, and returns what was told in the order of asking.
/// `progress` is called with the number of outcomes so far.
pub async fn ask_all(
    targets: &[Target],
    clients: usize,
    asks: Vec<Ask>,
    mut progress: impl FnMut(usize),
) -> Vec<Told> {
    let count = asks.len();
    let asks = Arc::new(asks);
    let next = Arc::new(AtomicUsize::new(0));
    // Each client has at most one outcome on its way.
    let (sender, mut receiver) = mpsc::channel(clients.max(1));
    for client in 0..clients.min(count) {
        let (asks, next, sender) = (Arc::clone(&asks), Arc::clone(&next), sender.clone());
        let targets = targets.to_vec();
        tokio::spawn(async move {
            let mut asker = Asker::new(targets, client);
            while let Some((index, ask)) = take(&asks, &next) {
                let told = asker.ask(ask).await;
                if sender.send((index, told)).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut told = vec![Told::Unknown("it was never asked".to_owned()); count];
    let mut done = 0;
    while let Some((index, outcome)) = receiver.recv().await {
        told[index] = outcome;
        done += 1;
        progress(done);
    }
    told
}

fn take<'a>(asks: &'a [Ask], next: &AtomicUsize) -> Option<(usize, &'a Ask)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    asks.get(index).map(|ask| (index, ask))
}

/// One client: a connection, and other pods to turn to when it breaks.
struct Asker {
    targets: Vec<Target>,
    at: usize,
    connection: Connection,
}

impl Asker {
    fn new(targets: Vec<Target>, client: usize) -> Self {
        let at = client % targets.len();
        let connection = Connection::new(&targets[at]);
        Self { targets, at, connection }
    }

    async fn ask(&mut self, ask: &Ask) -> Told {
        let started = Instant::now();
        loop {
            let request = self.targets[self.at].request(ask.method, &ask.path, ask.key.as_deref());
            let heard = match self.connection.ask(&request).await {
                Ok(answer) if answer.status < 500 && answer.status != 429 => return Told::Answer(answer),
                Ok(answer) => format!("{} {}", answer.status, answer.body.trim()),
                Err(broken) => broken.to_string(),
            };
            if started.elapsed() > KNOW_WITHIN {
                return Told::Unknown(heard);
            }
            self.at = (self.at + 1) % self.targets.len();
            self.connection = Connection::new(&self.targets[self.at]);
            tokio::time::sleep(REPEAT_AFTER).await;
        }
    }
}

/// All answers, every one of which must be 200: for preparations and reads.
///
/// # Errors
/// The first that is not, with what was asked.
pub async fn all_good(
    targets: &[Target],
    clients: usize,
    asks: Vec<Ask>,
    progress: impl FnMut(usize),
) -> anyhow::Result<Vec<String>> {
    let names: Vec<String> = asks.iter().map(|ask| format!("{} {}", ask.method, ask.path)).collect();
    let told = ask_all(targets, clients, asks, progress).await;
    let mut bodies = Vec::with_capacity(told.len());
    for (told, name) in told.into_iter().zip(names) {
        match told {
            Told::Answer(answer) if answer.status == 200 => bodies.push(answer.body),
            Told::Answer(answer) => {
                let (status, body) = (answer.status, answer.body.trim().to_owned());
                return Err(fail::impossible(format!("{name} was answered {status}: {body}")).into());
            }
            Told::Unknown(heard) => {
                return Err(fail::impossible(format!(
                    "{name} got no answer within {} s: {heard}\n`kassa status` shows whether the cluster can answer",
                    KNOW_WITHIN.as_secs()
                ))
                .into());
            }
        }
    }
    Ok(bodies)
}

/// The key of one request, unique to this run.
#[must_use]
pub fn key(run: &str, number: usize) -> String {
    format!("kassa-{run}-{number}")
}

/// A word that no other run has.
#[must_use]
pub fn run_word() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{:x}-{:x}", since.map_or(0, |since| since.as_micros()), std::process::id())
}
