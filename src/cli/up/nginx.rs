//! The nginx in front: its configuration, and how it is found and started.
//!
//! nginx spreads requests over the pods and sends a request again to another pod when one dies, stops
//! or sheds it. That is safe because every request carries an idempotency key: the client's own, or
//! nginx's `$request_id`, which stays the same over all attempts.
//!
//! What an answer of nginx's own may claim depends on what became of the attempts before it. An attempt
//! that was refused its connection, or was answered 400, 429 or 503, did nothing. After any other the outcome
//! is open: then nginx says 504 `outcome_unknown`, never "nothing was done". `$upstream_status` and
//! `$upstream_bytes_sent` list all attempts in order; no bytes sent means that the pod never saw it.

use crate::api::problem::{Code, Problem};
use anyhow::Context;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One attempt may take this long. Far shorter than a request's deadline, since a repeat is safe: so a
/// stopped pod's requests are answered by another in time.
const ATTEMPT_SECONDS: u64 = 2;
/// No further attempt after this: the deadline of a request.
const REQUEST_SECONDS: u64 = 10;
/// The same two for `batch_init`, whose deadline is 60 s.
const LOAD_ATTEMPT_SECONDS: u64 = 15;
const LOAD_REQUEST_SECONDS: u64 = 60;
/// A pod that failed once is left alone for this long, then tried with one request.
const FAIL_SECONDS: u64 = 1;
/// Connections a worker may hold: clients' and pods' together.
const CONNECTIONS: u64 = 8192;
/// Idle connections to the pods that are kept: as many as there are busy clients in any load we know.
const KEPT_CONNECTIONS: u64 = 512;
/// Larger bodies are answered 413; no path of the contract needs one.
const BODY_BYTES_MAX: u64 = 64 * 1024;
/// Request line and each header line. The pods' own limits are lower, so that they answer themselves.
const HEADER_BYTES_MAX: u64 = 16 * 1024;

/// What the configuration depends on.
#[derive(Clone, Debug)]
pub struct Front {
    /// Where all of nginx's files are.
    pub dir: PathBuf,
    pub listen: SocketAddr,
    pub pods: Vec<SocketAddr>,
    /// The account of the worker, where nginx is started by root.
    pub worker_user: Option<String>,
    pub open_files_max: u64,
}

impl Front {
    /// # Errors
    /// Where the directory or a file in it cannot be written.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(self.dir.join("tmp"))
            .with_context(|| format!("cannot make {}", self.dir.display()))?;
        let file = self.dir.join("nginx.conf");
        std::fs::write(&file, self.render()).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    #[must_use]
    pub fn render(&self) -> String {
        let dir = self.dir.display();
        let mut conf = String::new();
        let mut line = |text: String| {
            conf.push_str(&text);
            conf.push('\n');
        };
        line("# Written by `kassa up`, anew at every start: changes made here are lost.".into());
        if let Some(user) = &self.worker_user {
            line(format!("user {user};"));
        }
        line(format!(
            "daemon off;\nworker_processes 1;\nworker_rlimit_nofile {};\npid \"{dir}/pid\";\nerror_log \"{dir}/error.log\" error;",
            self.open_files_max
        ));
        line(format!(
            "events {{ worker_connections {}; multi_accept on; }}",
            CONNECTIONS.min(self.open_files_max)
        ));
        line("http {".into());
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            line(format!("    {kind}_temp_path \"{dir}/tmp/{kind}\";"));
        }
        line(HTTP.replace("@header@", &HEADER_BYTES_MAX.to_string()).replace(
            "@body@",
            &format!(
                "client_max_body_size {BODY_BYTES_MAX};\n    client_body_buffer_size {};",
                2 * BODY_BYTES_MAX
            ),
        ));
        line(self.doubt());
        line(self.upstream());
        line(format!("    server {{\n        listen {} backlog=4096 sndbuf=64k;", self.listen));
        line(SERVER.into());
        for path in ["/orders/batch_init/", "/stock/batch_init/", "/payment/batch_init/"] {
            line(proxy(&format!("location {path}"), LOAD_ATTEMPT_SECONDS, LOAD_REQUEST_SECONDS));
        }
        line(proxy("location /", ATTEMPT_SECONDS, REQUEST_SECONDS));
        for path in ["/healthz", "/readyz", "/status"] {
            line(look(path));
        }
        line(own_answers());
        line("    }\n}".into());
        conf
    }

    /// Each pod stands here twice. The second time, as a backup that is never given up, makes a second
    /// round of attempts possible and means that there is always someone to ask, also when every pod
    /// failed a moment ago.
    fn upstream(&self) -> String {
        let mut text = String::from("    upstream pods {\n        least_conn;\n");
        for pod in &self.pods {
            let _ = writeln!(text, "        server {pod} max_fails=1 fail_timeout={FAIL_SECONDS}s;");
        }
        for pod in &self.pods {
            let _ = writeln!(text, "        server {pod} backup max_fails=0;");
        }
        let _ = write!(
            text,
            "        keepalive {KEPT_CONNECTIONS};\n        keepalive_requests 1000000;\n        keepalive_timeout 30s;\n    }}"
        );
        text
    }

    /// `$in_doubt` is 1 where some attempt may have done something: one expression for each position.
    fn doubt(&self) -> String {
        let mut text = String::from(
            "    map \"$upstream_status|$upstream_bytes_sent\" $in_doubt {\n        default \"\";\n",
        );
        // Two rounds over the pods, and one more attempt where an answer of 400 is asked for again.
        for before in 0..=2 * self.pods.len() {
            let _ = writeln!(
                text,
                "        \"~^(?:[0-9-]+(?:, | : )){{{before}}}(?!400|429|503)[0-9].*\\|(?:[0-9-]+(?:, | : )){{{before}}}[1-9]\" 1;"
            );
        }
        text.push_str("    }");
        text
    }
}

fn proxy(location: &str, attempt_seconds: u64, request_seconds: u64) -> String {
    format!(
        r#"        {location} {{
            proxy_pass http://pods;
            proxy_read_timeout {attempt_seconds}s;
            proxy_next_upstream_timeout {request_seconds}s;
            # A 504 that comes sooner than an attempt may take is of a pod whose clock ran ahead.
            proxy_next_upstream error timeout http_502 http_503 http_504 non_idempotent;
            proxy_intercept_errors on;
            error_page 413 = /.kassa/body;
            error_page 429 = /.kassa/overloaded;
            error_page 500 502 503 504 = /.kassa/unavailable;
            # A chunked body that is malformed is found here, and not by the pod.
            if ($http_transfer_encoding) {{
                error_page 400 = @refused;
                error_page 413 = /.kassa/body;
                error_page 429 = /.kassa/overloaded;
                error_page 500 502 503 504 = /.kassa/unavailable;
            }}
        }}"#
    )
}

/// A path about a pod, not the shop: what the last pod says is passed on as it is.
fn look(path: &str) -> String {
    format!(
        r#"        location = {path} {{
            proxy_pass http://pods;
            proxy_read_timeout {ATTEMPT_SECONDS}s;
            proxy_next_upstream error timeout http_502 http_503;
            error_page 500 502 503 504 = /.kassa/unavailable;
        }}"#
    )
}

const HTTP: &str = r#"    access_log off;
    server_tokens off;
    default_type application/problem+json;
    keepalive_requests 1000000;
    keepalive_timeout 75s;
    client_header_timeout 15s;
    client_body_timeout 15s;
    send_timeout 15s;
    reset_timedout_connection on;
    lingering_time 60s;
    lingering_timeout 10s;
    client_header_buffer_size 2k;
    large_client_header_buffers 4 @header@;
    @body@

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Idempotency-Key $key;
    proxy_connect_timeout 1s;
    proxy_max_temp_file_size 0;

    map $http_idempotency_key $key {
        "" $request_id;
        default $http_idempotency_key;
    }
    map $upstream_http_retry_after $retry_after {
        "" 1;
        default $upstream_http_retry_after;
    }
    # A path that nginx cannot decode holds no id; anything else it cannot read is no HTTP.
    map $request $bad_id {
        default "";
        "~^[^ ]+ [^ ]*%(?:00|[^0-9A-Fa-f]|.[^0-9A-Fa-f])" 1;
    }"#;

const SERVER: &str = r#"        error_page 400 = /.kassa/unread;
        error_page 405 = /.kassa/method;
        error_page 413 = /.kassa/body;
        error_page 414 = /.kassa/uri;
        error_page 494 = /.kassa/headers;
        error_page 500 502 503 504 = /.kassa/unavailable;
        error_page 501 505 = /.kassa/unread;"#;

/// What nginx itself answers, and where requests are led for it. A client that asks for one of these
/// paths gets the same 404 as for any other path that is not there.
fn own_answers() -> String {
    let bad_id = format!("if ($bad_id) {{ {} }}", answer(Code::BadId, "a path segment cannot be decoded"));
    let doubt = format!(
        "if ($in_doubt) {{ {} }}",
        answer(
            Code::OutcomeUnknown,
            "the outcome was not known in time, and the request may yet take effect: repeat it with the header `Idempotency-Key` of this answer to learn how it ended"
        )
    );
    let shed = format!("{doubt}\n            add_header Retry-After $retry_after always;");
    let allow = "add_header Allow \"GET, POST, DELETE\" always;";
    let mut text =
        String::from("        location ^~ /.kassa/ { internal; error_page 404 = @no_such_path; }\n");
    // For operators, who ask a pod itself.
    text += "        location ^~ /replace/ { internal; error_page 404 = @no_such_path; }\n";
    for (path, before, code, detail) in [
        ("unread", bad_id.as_str(), Code::BadRequest, "this is not an HTTP/1.1 request that can be read"),
        ("method", allow, Code::MethodNotAllowed, "no path here takes this method"),
        ("body", "", Code::BodyTooLarge, "a body may have 64 KiB; no request here needs one"),
        ("uri", "", Code::UriTooLong, "a URI may have 8 KiB"),
        ("headers", "", Code::HeadersTooLarge, "the headers of a request may have 16 KiB"),
        (
            "overloaded",
            &shed,
            Code::Overloaded,
            "the pods have as much to do as they may take on; nothing was done: try again soon",
        ),
        (
            "unavailable",
            &shed,
            Code::Unavailable,
            "no pod could take the request; nothing was done: try again soon",
        ),
    ] {
        let answer = answer(code, detail);
        let _ = writeln!(
            text,
            "        location = /.kassa/{path} {{\n            internal;\n            error_page 404 = @no_such_path;\n            {before}\n            {answer}\n        }}"
        );
    }
    let _ = write!(
        text,
        r#"        location @refused {{
            if ($upstream_status = "") {{ {} }}
            # The pod refused, so nothing was done and its reasons can be asked for once more.
            proxy_pass http://pods;
            proxy_next_upstream off;
            error_page 500 502 503 504 = /.kassa/unavailable;
        }}
        location @no_such_path {{ {} }}"#,
        answer(Code::BadRequest, "the body cannot be read"),
        answer(Code::NoSuchPath, "there is no such path"),
    );
    text
}

/// A `return` with the same body that a pod would send.
fn answer(code: Code, detail: &'static str) -> String {
    let body = Problem::new(code, detail).body();
    format!(
        "add_header Idempotency-Key $key always; return {} '{}';",
        code.status().as_u16(),
        String::from_utf8_lossy(&body)
    )
}

/// An nginx that can be started.
#[derive(Clone, Debug)]
pub struct Nginx {
    program: PathBuf,
    /// Whether it knows `-e`, the log for what it says before it has read its configuration (1.19.5).
    takes_error_log: bool,
}

impl Nginx {
    /// The nginx on the PATH.
    #[must_use]
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program =
            std::env::split_paths(&path).map(|dir| dir.join("nginx")).find(|file| file.is_file())?;
        let version = Command::new(&program).arg("-v").output().ok()?;
        let text = String::from_utf8_lossy(&version.stderr).into_owned();
        let numbers: Vec<u32> = text
            .split_once("nginx/")?
            .1
            .split(|c: char| !c.is_ascii_digit())
            .map_while(|number| number.parse().ok())
            .take(3)
            .collect();
        Some(Self { program, takes_error_log: numbers.as_slice() >= [1, 19, 5].as_slice() })
    }

    /// How to come by one.
    #[must_use]
    pub fn advice() -> String {
        // Distributions put it where only root's PATH leads.
        ["/usr/sbin", "/usr/local/sbin"]
            .into_iter()
            .find(|dir| Path::new(dir).join("nginx").is_file())
            .map_or_else(
                || "`apt install nginx`, `dnf install nginx` or `apk add nginx` installs it".to_owned(),
                |dir| format!("there is one in {dir}: `export PATH=$PATH:{dir}`"),
            )
    }

    /// Program and arguments that run it in the foreground with this configuration.
    #[must_use]
    pub fn command(&self, front: &Front) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let mut command = vec![text(&self.program), "-p".into(), text(&front.dir)];
        command.extend(["-c".into(), text(&front.dir.join("nginx.conf"))]);
        if self.takes_error_log {
            command.extend(["-e".into(), text(&front.dir.join("error.log"))]);
        }
        command
    }
}

/// `nobody`, with its group as this system calls it, where the caller is root; nginx would otherwise
/// look for an account of its own that need not exist.
#[must_use]
pub fn worker_user() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let has = |name: &str| groups.lines().any(|line| line.starts_with(&format!("{name}:")));
    ["nogroup", "nobody"].into_iter().find(|group| has(group)).map(|group| format!("nobody {group}"))
}

/// How many files nginx may open: what the system allows, up to what it can use.
#[must_use]
pub fn open_files_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    limit.unwrap_or(u64::MAX).min(2 * CONNECTIONS)
}
