//! Pods as processes, with all that they say kept line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

pub use crate::wait::{PATIENCE, eventually};

/// Ports for one cluster of `kassa serve`: the fabric's right behind those for clients.
const PORTS_EACH: u16 = 16;

/// The first of a stretch of ports for one cluster. Below those that the system hands out by itself; each
/// run of tests on this machine takes a thousand.
fn ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    thousand() + 300 + NEXT.fetch_add(1, Ordering::Relaxed) * PORTS_EACH
}

/// The same for `kassa up`, whose nginx is 100 below and whose fabric 200 above.
pub fn ports_of_up() -> u16 {
    thousand()
}

fn thousand() -> u16 {
    static TAKEN: OnceLock<(u16, File)> = OnceLock::new();
    let (run, _) = TAKEN.get_or_init(|| {
        let take = |run: u16| {
            let lock = File::create(std::env::temp_dir().join(format!("kassa-test-ports-{run}"))).ok()?;
            lock.try_lock().ok()?;
            Some((run, lock))
        };
        (0..20).find_map(take).expect("fewer than twenty runs at once")
    });
    10_200 + run * 1000
}

/// A directory in memory where the system has such.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Where the pods of a cluster are, and how they are started.
#[derive(Clone, Debug)]
pub struct Plan {
    pub dir: PathBuf,
    pub first_port: u16,
    pub pods: u16,
    /// Every pod's number and fabric address.
    pub peers: String,
    /// Further arguments of each pod.
    pub more: Vec<String>,
}

impl Plan {
    pub fn new(dir: &Path, pods: u16, more: &[&str]) -> Self {
        let more = more.iter().map(|&argument| argument.to_owned()).collect();
        let first_port = ports();
        let peers: Vec<String> =
            (0..pods).map(|pod| format!("{pod}=127.0.0.1:{}", first_port + pods + pod)).collect();
        Self { dir: dir.to_owned(), first_port, pods, peers: peers.join(","), more }
    }

    pub fn data(&self, pod: u16) -> PathBuf {
        self.dir.join(format!("pod-{pod}"))
    }

    pub fn http(&self, pod: u16) -> u16 {
        self.first_port + pod
    }

    pub fn fabric(&self, pod: u16) -> u16 {
        self.first_port + self.pods + pod
    }

    pub fn command(&self, pod: u16) -> Command {
        let mut command = kassa();
        command
            .arg("serve")
            .args(["--pod", &pod.to_string()])
            .args(["--peers", &self.peers])
            .args(["--http", &format!("127.0.0.1:{}", self.http(pod))])
            .args(["--fabric", &format!("127.0.0.1:{}", self.fabric(pod))])
            .args(["--data", &self.data(pod).display().to_string()])
            .args(["--set", &format!("cluster.replicas={}", self.pods.min(3))])
            .args(["--set", &format!("stock.write_quorum={}", self.pods.min(2))])
            .args(["--with-parent", &std::process::id().to_string()])
            .args(&self.more);
        command
    }

    pub fn start(&self, pod: u16) -> Pod {
        Pod::start(self.command(pod), self.http(pod))
    }

    /// A pod that can be made ill while it runs.
    pub fn start_to_be_ill(&self, pod: u16) -> Pod {
        let mut command = self.command(pod);
        command.arg("--faults-from-stdin").stdin(Stdio::piped());
        Pod::start(command, self.http(pod))
    }

    /// All of its pods, ready.
    pub fn start_all(&self) -> Vec<Pod> {
        let pods: Vec<Pod> = (0..self.pods).map(|pod| self.start(pod)).collect();
        for pod in &pods {
            pod.wait_ready();
        }
        pods
    }
}

pub fn kassa() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kassa"));
    command.env_remove("KASSA_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code and standard error of a command that ends by itself.
pub fn told(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A running process; killed when the test ends.
pub struct Pod {
    child: Child,
    pub http: u16,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Pod {
    pub fn start(mut command: Command, http: u16) -> Self {
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let reader = {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in stderr.lines() {
                    lines.0.lock().unwrap().push(line.unwrap());
                    lines.1.notify_all();
                }
            })
        };
        Self { child, http, lines, reader: Some(reader) }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Tells a pod that was started with `--faults-from-stdin` what is to be wrong with it.
    pub fn make_ill(&mut self, how: &str) {
        writeln!(self.child.stdin.as_mut().expect("its end of the pipe"), "{how}").unwrap();
    }

    /// All that it said so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.0.lock().unwrap().clone()
    }

    pub fn lines_with(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    pub fn wait_line(&self, text: &str) {
        let (lines, more) = &*self.lines;
        let missing = |lines: &mut Vec<String>| !lines.iter().any(|line| line.contains(text));
        let (lines, waited) = more.wait_timeout_while(lines.lock().unwrap(), PATIENCE, missing).unwrap();
        assert!(!waited.timed_out(), "never {text:?} among {lines:#?}");
    }

    pub fn wait_ready(&self) {
        eventually("ready", || ask(self.http, "GET", "/readyz").is_some_and(|(status, _)| status == 200));
    }

    /// Ends it as a crash would; its ports are free then.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The exit code once it has ended, and everything it said.
    pub fn wait(&mut self) -> (Option<i32>, Vec<String>) {
        eventually("it ends", || self.has_ended());
        // Ends with the pipe.
        self.reader.take().unwrap().join().unwrap();
        (self.child.wait().unwrap().code(), self.lines())
    }

    pub fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        kill(self.pid(), Signal::TERM);
        self.wait()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// From now on no file of the process may be longer than this: to it, the disk is full.
pub fn limit_files(pid: i32, bytes: Option<u64>) {
    let limit = Rlimit { current: bytes, maximum: getrlimit(Resource::Fsize).maximum };
    prlimit(Some(Pid::from_raw(pid).unwrap()), Resource::Fsize, limit).unwrap();
}

/// Status and body; `None` if nobody answers.
pub fn ask(port: u16, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}

/// The body of an answer that must be 200.
pub fn good(port: u16, method: &str, path: &str) -> String {
    let (status, body) =
        ask(port, method, path).unwrap_or_else(|| panic!("{method} {path} on {port}: no answer"));
    assert_eq!(status, 200, "{method} {path} on {port}: {body}");
    body
}

/// The text of one field of a JSON answer.
pub fn field(body: &str, name: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    let value = &json[name];
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
