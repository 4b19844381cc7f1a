//! `kassa serve` as a process: what it refuses and with which exit code, how it forms and ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and this file is nothing else")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use wait::{PATIENCE, eventually_some};

mod wait;

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|i| held[i].local_addr().unwrap().port())
}

/// A pod's command line; a cluster of as many pods as there are fabric ports.
fn serve(data: &Path, pod: usize, http: u16, fabric: &[u16]) -> Command {
    let peers: Vec<String> =
        fabric.iter().enumerate().map(|(pod, port)| format!("{pod}=127.0.0.1:{port}")).collect();
    let replicas = fabric.len().min(3);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kassa"));
    command
        .arg("serve")
        .args(["--pod", &pod.to_string()])
        .args(["--peers", &peers.join(",")])
        .args(["--http", &format!("127.0.0.1:{http}")])
        .args(["--fabric", &format!("127.0.0.1:{}", fabric[pod])])
        .args(["--data", &data.display().to_string()])
        .args(["--set", &format!("cluster.replicas={replicas}")])
        .args(["--set", "stock.write_quorum=all"])
        .args(["--with-parent", &std::process::id().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A running pod; killed when the test ends.
struct Pod {
    child: Child,
    http: u16,
}

impl Pod {
    fn start(data: &Path, pod: usize, http: u16, fabric: &[u16]) -> Self {
        let log = std::fs::File::create(data.with_extension("log")).unwrap();
        let child = serve(data, pod, http, fabric).stderr(log).spawn().unwrap();
        Self { child, http }
    }

    /// Status code and body; `None` while nobody listens.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// Asks for `path` until the answer is as `wanted`.
    fn wait_for(&self, path: &str, wanted: impl Fn(u16, &str) -> bool) {
        eventually_some(path, || match self.get(path) {
            Some((status, body)) if wanted(status, &body) => Ok(()),
            other => Err(other),
        });
    }

    fn terminate(mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, begun.elapsed())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code and standard error of a pod that does not come to serve.
fn refused(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_pod_serves_ends_and_continues() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("pod-0");
    let [http, fabric, other_http, other_fabric] = free_ports();
    let pod = Pod::start(&data, 0, http, &[fabric]);
    pod.wait_for("/readyz", |status, _| status == 200);
    let pid = std::fs::read_to_string(data.join("pid")).unwrap();
    assert_eq!(pid, format!("{}\n", pod.child.id()));

    let (code, told) = refused(serve(&data, 0, other_http, &[other_fabric]));
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("in use by another process"), "{told}");
    let (code, told) = refused(serve(&directory.path().join("pod-1"), 0, http, &[other_fabric]));
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains(&format!("`http` 127.0.0.1:{http}")), "{told}");

    let (code, took) = pod.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");

    let mut fewer_shards = serve(&data, 0, http, &[fabric]);
    fewer_shards.args(["--set", "cluster.shards=12"]);
    let (code, told) = refused(fewer_shards);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("cluster.shards is 24 there and 12 here"), "{told}");

    let pod = Pod::start(&data, 0, http, &[fabric]);
    pod.wait_for("/readyz", |status, _| status == 200);
    pod.terminate();
    std::fs::remove_file(data.join("identity")).unwrap();
    let (code, told) = refused(serve(&data, 0, http, &[fabric]));
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("identity is missing"), "{told}");
}

#[test]
fn pods_form_a_cluster_and_one_with_another_disk_waits() {
    let directory = tempfile::tempdir().unwrap();
    let [http_0, http_1, fabric_0, fabric_1] = free_ports();
    let fabric = [fabric_0, fabric_1];
    let data: Vec<_> = (0..2).map(|pod| directory.path().join(format!("pod-{pod}"))).collect();

    let zero = Pod::start(&data[0], 0, http_0, &fabric);
    zero.wait_for("/readyz", |status, body| status == 503 && body.contains("waiting for p1"));
    assert_eq!(zero.get("/healthz").unwrap().0, 200);
    let one = Pod::start(&data[1], 1, http_1, &fabric);
    zero.wait_for("/readyz", |status, _| status == 200);
    one.wait_for("/readyz", |status, _| status == 200);

    drop(one);
    zero.wait_for("/readyz", |status, _| status == 503);
    std::fs::remove_dir_all(&data[1]).unwrap();
    let wiped = Pod::start(&data[1], 1, http_1, &fabric);
    wiped.wait_for("/readyz", |status, body| status == 503 && body.contains("waits to be replaced"));
    assert_eq!(wiped.terminate().0, Some(0));
}

#[test]
fn wrong_configuration_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pod.toml");
    std::fs::write(&file, "pod = 0\n\n[timing]\nelection_ms = \"soon\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kassa"));
    command.args(["serve", "--config"]).arg(&file);
    let (code, told) = refused(command);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("pod.toml, line 4: `timing.election_ms`: a string is no whole number"), "{told}");
    assert!(told.lines().count() <= 2, "{told}");
}
