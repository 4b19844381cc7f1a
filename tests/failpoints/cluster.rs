//! Clusters in which one pod crashes at one site after the other, or all at once.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;

use crate::cases::{Case, Way, cases};
use crate::load::{Load, verify};
use crate::pods::{Plan, Pod, ask, eventually, field, kassa, kill, scratch, told};
use crate::replicas;

/// So little log that checkpoints and cuts come by all the time.
const SETTINGS: [&str; 2] = ["--set", "limits.log_bytes_max=65536"];
/// Sites at which all pods are made to crash at once: between what is durable and what is said of it.
const TOGETHER: [&str; 10] = [
    "early.after",
    "replies.after",
    "order.before-commit",
    "order.after-commit",
    "stock.before-commit",
    "stock.after-commit",
    "payment.before-commit",
    "payment.after-commit",
    "order.durable-payment-not",
    "late.between",
];

/// A cluster under load, or a new one.
struct Cluster {
    plan: Plan,
    pods: Vec<Pod>,
}

impl Cluster {
    fn kill(&mut self, pod: u16) {
        self.pods[usize::from(pod)].kill();
    }

    /// None of them sees another one die. Whoever is alone for a while takes what clients put into their carts,
    /// and the others, should they come back without it, check out what they know of.
    fn kill_at_once(&mut self, pods: &[u16]) {
        for &pod in pods {
            let pod = &mut self.pods[usize::from(pod)];
            if !pod.has_ended() {
                kill(pod.pid(), Signal::STOP);
            }
        }
        pods.iter().for_each(|&pod| self.kill(pod));
    }

    /// Starts a pod that was ended.
    fn start(&mut self, pod: u16) {
        self.pods[usize::from(pod)] = self.plan.start(pod);
    }

    fn wait_ready(&self) {
        self.pods.iter().for_each(Pod::wait_ready);
    }

    /// Starts a pod that was ended, to crash at a site.
    fn start_to_crash(&mut self, pod: u16, site: &str, passage: u64) {
        self.pods[usize::from(pod)] = start_to_crash(&self.plan, pod, &format!("{site}:{passage}"));
    }

    /// Waits until it has crashed there.
    fn crashed(&mut self, pod: u16, site: &str, load: Option<&Load>) {
        eventually("it crashes", || {
            // Without clients it never would.
            load.inspect(|load| load.is_good());
            self.pods[usize::from(pod)].has_ended()
        });
        let (code, lines) = self.pods[usize::from(pod)].wait();
        assert!(code.is_none() && lines.contains(&format!("kassa: failpoint {site}")), "{lines:#?}");
    }

    /// That what the pod left is whole.
    fn is_whole(&self, pod: u16) {
        let (code, said) = told(kassa().arg("check").arg(self.plan.data(pod)));
        assert_eq!(code, Some(0), "{said}");
    }

    /// Leads a pod of a running cluster to a site again and again, and leaves it running.
    fn crash(&mut self, pod: u16, case: &Case, load: &Load) {
        self.kill(pod);
        for &passage in case.passages {
            match case.way {
                Way::Torn => tear(&self.plan.data(pod)),
                Way::Copying => self.leave_behind(pod, load),
                Way::Forming | Way::Starting | Way::Running | Way::Ending | Way::Filling => {}
            }
            self.start_to_crash(pod, &case.site, passage);
            if case.way == Way::Ending {
                self.pods[usize::from(pod)].wait_ready();
                kill(self.pods[usize::from(pod)].pid(), Signal::TERM);
            }
            self.crashed(pod, &case.site, Some(load));
            self.is_whole(pod);
        }
        self.start(pod);
        self.wait_ready();
        load.is_good();
    }

    /// Has the others go on without the pod until their logs do not reach back to it: they have been started
    /// again since, and so hold no more in memory than their stores do.
    fn leave_behind(&mut self, pod: u16, load: &Load) {
        load.passes();
        for other in (0..self.plan.pods).filter(|other| *other != pod) {
            self.kill(other);
            self.start(other);
            self.pods[usize::from(other)].wait_ready();
        }
    }

    /// Has all pods crash at once: the first one at the site, the others wherever they are then.
    fn crash_all(&mut self, site: &str, passage: u64, load: &Load) {
        self.kill_at_once(&[0, 1, 2]);
        for pod in 0..self.plan.pods {
            self.start_to_crash(pod, site, passage);
        }
        let mut first = None;
        eventually("one of them crashes", || {
            load.is_good();
            first = (0..self.plan.pods).find(|&pod| self.pods[usize::from(pod)].has_ended());
            first.is_some()
        });
        let first = first.unwrap();
        let others: Vec<u16> = (0..self.plan.pods).filter(|pod| *pod != first).collect();
        self.kill_at_once(&others);
        self.crashed(first, site, Some(load));
        for pod in 0..self.plan.pods {
            self.is_whole(pod);
            self.start(pod);
        }
        self.wait_ready();
        load.is_good();
    }

    /// Waits until nothing is in flight, and ends all in order.
    fn end(self) {
        let is_quiet = |pod: u16| {
            let (_, status) = ask(self.plan.http(pod), "GET", "/status").unwrap();
            field(&status, "checkouts") == "0" && field(&status, "unfinished") == "0"
        };
        eventually("nothing is in flight", || (0..self.plan.pods).all(is_quiet));
        for pod in self.pods {
            assert_eq!(pod.terminate().0, Some(0));
        }
        let (code, said) = told(kassa().arg("check").arg(&self.plan.dir));
        assert_eq!(code, Some(0), "{said}");
    }
}

fn start_to_crash(plan: &Plan, pod: u16, at: &str) -> Pod {
    let mut command = plan.command(pod);
    command.env("KASSA_FAILPOINT", at);
    Pod::start(command, plan.http(pod))
}

/// Leaves behind the end of the journals of a pod what a crash in the middle of a write does: the beginning of
/// another batch.
fn tear(pod: &Path) {
    for store in ["order", "stock", "payment"] {
        let entries = fs::read_dir(pod.join(store)).unwrap().map(|entry| entry.unwrap().path());
        let newest = entries.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max().unwrap();
        let bytes = fs::read(&newest).unwrap();
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let journal = OpenOptions::new().write(true).open(&newest).unwrap();
        journal.write_all_at(&bytes[..90], end as u64).unwrap();
    }
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

#[test]
fn a_pod_that_crashes_anywhere_loses_nothing_that_was_said() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 3, &SETTINGS);
    let mut cluster = Cluster { pods: plan.start_all(), plan: plan.clone() };
    let load = Load::start(&plan);
    load.passes();
    let ways = [Way::Running, Way::Starting, Way::Torn, Way::Copying, Way::Ending];
    for (case, pod) in cases(&ways).into_iter().zip((0..plan.pods).cycle()) {
        let started = Instant::now();
        println!("pod {pod} crashes at {} {:?}", case.site, case.passages);
        cluster.crash(pod, &case, &load);
        println!("  {} runs are good ({})", load.runs(), seconds(started));
    }
    for (site, passage) in TOGETHER.into_iter().zip([1, 20].into_iter().cycle()) {
        println!("all pods crash at {site}:{passage}");
        cluster.crash_all(site, passage, &load);
    }
    load.passes();
    println!("{} runs are good", load.end());
    cluster.end();
    replicas::are_the_same(&plan);
}

#[test]
fn a_pod_that_crashes_while_its_cluster_forms_joins_it() {
    for (case, pod) in cases(&[Way::Forming]).into_iter().zip((0..3).cycle()) {
        for &passage in case.passages {
            let started = Instant::now();
            println!("pod {pod} crashes at {}:{passage}", case.site);
            let dir = scratch();
            let plan = Plan::new(dir.path(), 3, &SETTINGS);
            let at = format!("{}:{passage}", case.site);
            let start = |one| if one == pod { start_to_crash(&plan, pod, &at) } else { plan.start(one) };
            let mut cluster = Cluster { pods: (0..plan.pods).map(start).collect(), plan: plan.clone() };
            cluster.crashed(pod, &case.site, None);
            cluster.start(pod);
            cluster.wait_ready();
            verify(&plan, 20).unwrap();
            cluster.end();
            println!("  good ({})", seconds(started));
        }
    }
}
