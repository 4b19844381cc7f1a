//! Clients that buy without pause: one `kassa verify` after the other, each with books of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::pods::{Plan, eventually, kassa};

/// Orders of one run: about a second of load.
const ORDERS: u64 = 200;

/// Load on all pods of a cluster until it is told to end.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    runs: AtomicU64,
    /// What a run found wrong.
    fault: Mutex<Option<String>>,
}

impl Load {
    pub fn start(plan: &Plan) -> Self {
        let shared = Arc::new(Shared::default());
        let (plan, told) = (plan.clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            while !told.ends.load(Ordering::Relaxed) {
                if let Err(fault) = verify(&plan, ORDERS) {
                    *told.fault.lock().unwrap() = Some(fault);
                    return;
                }
                told.runs.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Panics if a run has found something wrong: there is no load any more then.
    pub fn is_good(&self) {
        if let Some(fault) = &*self.shared.fault.lock().unwrap() {
            panic!("what clients were told is not what the stores hold: {fault}");
        }
    }

    /// How many runs have found nothing wrong.
    pub fn runs(&self) -> u64 {
        self.is_good();
        self.shared.runs.load(Ordering::Relaxed)
    }

    /// Waits for the end of a run that begins no earlier than now.
    pub fn passes(&self) {
        let before = self.runs();
        eventually("two more runs", || self.runs() >= before + 2);
    }

    pub fn end(mut self) -> u64 {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.runs()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

/// One run through all pods; what it says if its four lines are not 0.
pub fn verify(plan: &Plan, orders: u64) -> Result<(), String> {
    let mut command = kassa();
    command.arg("verify").args(["--orders", &orders.to_string(), "--clients", "24"]);
    for pod in 0..plan.pods {
        command.args(["--url", &format!("http://127.0.0.1:{}", plan.http(pod))]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let zeros =
        said.lines().filter(|line| line.contains(" inconsistencies in the ") && line.ends_with(": 0"));
    if output.status.success() && zeros.count() == 4 { Ok(()) } else { Err(said) }
}
