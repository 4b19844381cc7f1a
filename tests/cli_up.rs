//! `kassa up` as a process: it sells, starts again what dies, and takes all of its children down with it,
//! however it ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wait::eventually;

mod wait;

struct Up {
    child: Child,
    data: PathBuf,
    http_port: u16,
    has_nginx: bool,
    lines: Vec<String>,
}

fn kassa() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kassa"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A stretch of ports for one cluster: nginx 100 below the pods, the fabric 200 above them. Below the
/// ports that the system hands out by itself; each run of these tests on this machine takes a thousand.
fn ports(test: u16) -> u16 {
    static TAKEN: OnceLock<(u16, File)> = OnceLock::new();
    let (run, _) = TAKEN.get_or_init(|| {
        let take = |run: u16| {
            let lock = File::create(std::env::temp_dir().join(format!("kassa-test-ports-{run}"))).ok()?;
            lock.try_lock().ok()?;
            Some((run, lock))
        };
        (0..20).find_map(take).expect("fewer than twenty runs at once")
    });
    10_200 + run * 1000 + test * 16
}

fn has_nginx() -> bool {
    std::env::split_paths(&std::env::var_os("PATH").expect("a PATH")).any(|dir| dir.join("nginx").is_file())
}

fn up(data: &Path, http_port: u16, more: &[&str]) -> Command {
    let mut command = kassa();
    command.args(["up", "--http-port", &http_port.to_string(), "--data"]).arg(data).args(more);
    command
}

impl Up {
    fn start(data: &Path, http_port: u16) -> Self {
        let mut child = up(data, http_port, &[]).stderr(Stdio::inherit()).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = Vec::new();
        for line in out.lines() {
            let line = line.expect("text");
            let is_last = line.starts_with("Next:");
            lines.push(line);
            if is_last {
                break;
            }
        }
        assert!(lines.iter().any(|line| line.contains("is ready")), "{lines:?}");
        Self { child, data: data.to_owned(), http_port, has_nginx: has_nginx(), lines }
    }

    fn pid_of(&self, file: &str) -> Option<i32> {
        let text = std::fs::read_to_string(self.data.join(file)).ok()?;
        text.strip_suffix('\n').expect("a newline").parse().ok()
    }

    fn pod(&self, pod: u16) -> Option<i32> {
        self.pid_of(&format!("pod-{pod}/pid"))
    }

    /// All processes below this one.
    fn descendants(&self) -> BTreeSet<i32> {
        let root = i32::try_from(self.child.id()).expect("a pid");
        let mut parents = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            if let Some(parent) = parent(pid) {
                parents.push((pid, parent));
            }
        }
        let mut found = BTreeSet::from([root]);
        while let Some(&(pid, _)) =
            parents.iter().find(|(pid, parent)| found.contains(parent) && !found.contains(pid))
        {
            found.insert(pid);
        }
        found.remove(&root);
        found
    }

    fn signal(&self, signal: Signal) {
        kill(i32::try_from(self.child.id()).expect("a pid"), signal);
    }

    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("it ends", || {
            ended = self.child.try_wait().expect("asked");
            ended.is_some()
        });
        ended.expect("waited for")
    }

    fn shop(&self) -> SocketAddr {
        let port = if self.has_nginx { self.http_port - 100 } else { self.http_port };
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; a zombie counts as gone.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then(|| fields.next()?.parse().ok())?
}

fn is_alive(pid: i32) -> bool {
    parent(pid).is_some()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("it is there");
}

fn ask(address: SocketAddr, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}

#[test]
fn a_cluster_sells_and_goes_down_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut up = Up::start(&dir.path().join("data"), ports(0));
    for _ in 0..2 {
        // The tour that it prints is true.
        let tour: Vec<&String> = up.lines.iter().filter(|line| line.contains("curl ")).collect();
        assert_eq!(tour.len(), 5, "{:?}", up.lines);
        let script = tour.iter().map(|line| line.as_str()).collect::<Vec<_>>().join("\n");
        let output = Command::new("sh").args(["-ec", &script]).output().expect("a shell");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains(r#""paid":true"#) && told.contains(r#""credit":85.5"#), "{told}");
        assert!(told.contains(r#""stock":8"#), "{told}");

        let children = up.descendants();
        assert!(children.len() >= 3, "{children:?}");
        let (status, _) = ask(up.shop(), "GET", "/readyz").expect("an answer");
        assert_eq!(status, 200);
        let asked = Instant::now();
        up.signal(Signal::TERM);
        assert_eq!(up.wait().code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        for child in children {
            assert!(!is_alive(child), "{child} outlived `up`");
        }
        // A second run continues where the first ended.
        up = Up::start(&dir.path().join("data"), ports(0));
    }
}

#[test]
fn no_child_outlives_an_up_that_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut up = Up::start(&dir.path().join("data"), ports(1));
    let children = up.descendants();
    let expected = if up.has_nginx { 5 } else { 3 };
    assert_eq!(children.len(), expected, "three pods, and nginx with its worker");
    up.signal(Signal::KILL);
    up.wait();
    for child in children {
        eventually("it ends with its parent", || !is_alive(child));
    }
    // And the next one starts at once, although the last could not tidy up.
    drop(Up::start(&dir.path().join("data"), ports(1)));
}

#[test]
fn what_dies_is_started_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let up = Up::start(&dir.path().join("data"), ports(2));
    let first = up.pod(1).expect("a pid");
    kill(first, Signal::KILL);
    eventually("pod 1 is back", || {
        up.pod(1).is_some_and(|pid| pid != first)
            && ask(SocketAddr::from(([127, 0, 0, 1], up.http_port + 1)), "GET", "/readyz")
                .is_some_and(|(status, _)| status == 200)
    });
    if up.has_nginx {
        let first = up.pid_of("nginx/pid").expect("a pid");
        kill(first, Signal::KILL);
        eventually("nginx is back", || {
            up.pid_of("nginx/pid").is_some_and(|pid| pid != first && is_alive(pid))
                && ask(up.shop(), "GET", "/healthz").is_some_and(|(status, _)| status == 200)
        });
    }
}

/// Exit code and stderr of an `up` that must refuse.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("it runs");
    let error = String::from_utf8(output.stderr).expect("text");
    assert!((1..=2).contains(&error.lines().count()), "an error is one or two lines: {error}");
    (output.status.code(), error)
}

#[test]
fn a_second_up_on_one_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let up_running = Up::start(&data, ports(3));
    let (code, error) = refused(&mut up(&data, ports(4), &["--fresh"]));
    assert_eq!(code, Some(3), "{error}");
    assert!(up_running.pod(0).is_some_and(is_alive));
}

#[test]
fn wrong_use_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let other = dir.path().join("other");
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join("letter.txt"), "mine").expect("written");
    let (code, error) = refused(&mut up(&other, ports(5), &["--fresh"]));
    assert_eq!(code, Some(2), "{error}");
    assert!(other.join("letter.txt").is_file());

    let (code, error) = refused(up(&data, ports(5), &["--nginx", "9"]).env("PATH", dir.path()));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("no nginx"), "{error}");

    let config = dir.path().join("shared.toml");
    std::fs::write(&config, "[cluster]\nshards = 8\n[stock]\nwrite_quorums = 2\n").expect("written");
    let (code, error) = refused(&mut up(&data, ports(5), &["--config", config.to_str().expect("text")]));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("line 4"), "{error}");

    let taken = TcpListener::bind(("127.0.0.1", ports(5) + 2)).expect("free");
    let (code, error) = refused(&mut up(&data, ports(5), &[]));
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains(&format!("port {}", ports(5) + 2)), "{error}");
    drop(taken);

    let (code, _) = refused(&mut up(&data, ports(5), &["--pods", "0"]));
    assert_eq!(code, Some(2));
    let (code, error) = refused(&mut up(&data, ports(5), &["--pods", "5", "--payment-pods", "2"]));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--payment-pods: 2 of 5 pods: at least 3"), "{error}");
    let (code, error) = refused(&mut up(&data, ports(5), &["--stock-pods", "4"]));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--stock-pods: 4 of 3 pods"), "{error}");
    let (code, error) = refused(kassa().args(["status", "--url", "http://127.0.0.1:9"]));
    assert_eq!(code, Some(3), "{error}");
    for command in ["verify", "bench"] {
        let (code, error) = refused(kassa().args([command, "--url", "http://127.0.0.1:9"]));
        assert_eq!(code, Some(3), "{error}");
    }
    let (code, error) = refused(kassa().args(["bench", "--mix", "buy"]));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("`kassa bench --help`"), "{error}");
    let (code, error) = refused(kassa().args(["check", "/nowhere"]));
    assert_eq!(code, Some(3), "{error}");
}
