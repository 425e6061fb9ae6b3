//! Starts the binary on a temporary copy of the shipped models and talks to it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything is waited for. Far beyond what it takes, so that a busy machine fails no
/// test.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something; panics after [`LIMIT`].
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A folder with `models/` and `tidegate.toml`, and the server that runs on them.
pub(crate) struct Server {
    environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// What a server is started with.
pub(crate) struct Setup {
    folder: tempfile::TempDir,
    /// Lines of configuration by section.
    pub(crate) config: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// The shipped models named, and nothing else in the repository.
    pub(crate) fn with_models(models: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        for model in models {
            copy(&shipped(model), &folder.path().join("models").join(model));
        }
        Self { folder, config: String::new(), environment: Vec::new() }
    }

    /// Adds lines to the configuration.
    pub(crate) fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Sets a variable of the server's environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// Writes a file into the repository.
    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        write(&self.models().join(path), content);
        self
    }

    /// Removes a file from the repository.
    pub(crate) fn without(self, path: &str) -> Self {
        std::fs::remove_file(self.models().join(path)).unwrap();
        self
    }

    /// Writes the configuration and returns its path, without starting anything.
    pub(crate) fn write_config(&self) -> PathBuf {
        let path = self.folder.path().join("tidegate.toml");
        std::fs::write(&path, configuration(&self.config)).unwrap();
        path
    }

    /// Starts the server and waits until it serves.
    pub(crate) fn start(self) -> Server {
        let config = self.write_config();
        let Launched { child, log, http, grpc, admin } = launch(&config, &self.environment);
        Server { folder: self.folder, environment: self.environment, child, log, http, grpc, admin }
    }
}

struct Launched {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    http: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
}

fn launch(config: &Path, environment: &[(String, String)]) -> Launched {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", "--config"])
        .arg(config)
        // Of the system's choice too, whatever a test's [server] says.
        .env("TIDEGATE_SERVER__GRPC", "127.0.0.1:0")
        .envs(environment.iter().cloned())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let sink = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    let serving = eventually("the server to serve", || {
        let lines = log.lock().unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the server ended with {status}: {lines:?}");
        }
        lines.iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "serving").then_some(line)
        })
    });
    let address = |key: &str| serving[key].as_str().unwrap().parse().unwrap();
    let (http, grpc, admin) = (address("http"), address("grpc"), address("admin"));
    Launched { child, log, http, grpc, admin }
}

/// Ports are the system's choice; files are taken as soon as they are there.
fn configuration(lines: &str) -> String {
    let has = |section: &str| lines.contains(&format!("[{section}]"));
    let mut text = String::new();
    for (section, defaults) in [
        ("server", "http = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n"),
        ("repository", "path = \"models\"\nsettle = \"1ms\"\npoll = \"100ms\"\n"),
        ("log", "format = \"json\"\naccess = \"all\"\n"),
    ] {
        if !has(section) {
            text.push_str(&format!("[{section}]\n{defaults}"));
        }
    }
    format!("{text}{lines}")
}

impl Server {
    pub(crate) fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// Writes a file into the repository, whole at once.
    pub(crate) fn file(&self, path: &str, content: &[u8]) {
        let path = self.models().join(path);
        let temporary = self.folder.path().join("being-written");
        write(&temporary, content);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::rename(temporary, path).unwrap();
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("tidegate.toml")
    }

    /// Replaces the configuration's file.
    pub(crate) fn write_config(&self, lines: &str) {
        let temporary = self.folder.path().join("tidegate.toml.new");
        std::fs::write(&temporary, configuration(lines)).unwrap();
        std::fs::rename(temporary, self.config_path()).unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        exchange(self.http, &head("GET", path, &[], None), b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, &[], body.as_bytes())
    }

    pub(crate) fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        exchange(self.http, &head("POST", path, headers, Some(body.len())), body)
    }

    pub(crate) fn admin_get(&self, path: &str) -> Answer {
        exchange(self.admin, &head("GET", path, &[], None), b"")
    }

    pub(crate) fn admin_post(&self, path: &str, body: &str) -> Answer {
        exchange(self.admin, &head("POST", path, &[], Some(body.len())), body.as_bytes())
    }

    /// The sum of all series of a metric whose labels contain each of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin_get("/metrics").text();
        let lines = text.lines().filter(|line| {
            let series = line.strip_prefix(name).unwrap_or_default();
            series.starts_with(['{', ' ']) && labels.iter().all(|label| series.contains(label))
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The versions of a model that serve.
    pub(crate) fn versions(&self, model: &str) -> Vec<String> {
        let metadata = self.get(&format!("/v2/models/{model}"));
        let versions = metadata.json()["versions"].as_array().cloned().unwrap_or_default();
        versions.iter().map(|version| version.as_str().unwrap().to_owned()).collect()
    }

    /// The index entries of a model: version, state, reason.
    pub(crate) fn index(&self, model: &str) -> Vec<(String, String, String)> {
        let index = self.post("/v2/repository/index", "{}").json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entries = index.as_array().unwrap().iter().filter(|entry| entry["name"] == model);
        entries.map(|e| (text(&e["version"]), text(&e["state"]), text(&e["reason"]))).collect()
    }

    /// Lines of the log that contain `text`.
    pub(crate) fn log_lines(&self, text: &str) -> Vec<String> {
        let lines = self.log.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Sends a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid()]).status().unwrap();
        assert!(status.success());
    }

    /// Kills the process as a crash does, and starts it again on the same files.
    pub(crate) fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let Launched { child, log, http, grpc, admin } =
            launch(&self.config_path(), &self.environment);
        (self.child, self.log) = (child, log);
        (self.http, self.grpc, self.admin) = (http, grpc, admin);
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the server to end", || self.child.try_wait().unwrap())
    }

    /// Ends the server well and keeps its folder.
    pub(crate) fn take_folder(mut self) -> tempfile::TempDir {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "ended with {status}");
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Ends the server as an operator does and checks that it ends well.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "ended with {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that failed leaves the server to us; one that stopped it has nothing left.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The message of an error.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A request's head.
pub(crate) fn head(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: Option<usize>,
) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = length {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head.push_str("\r\n");
    head
}

/// A connection with a limit on every wait.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// One request on a connection of its own.
pub(crate) fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses by the head alone may close before the body is sent.
    drop(stream.write_all(body));
    read_answer(&mut BufReader::new(stream)).expect("an answer")
}

/// The next answer on a connection; nothing where it was closed.
pub(crate) fn read_answer(stream: &mut impl BufRead) -> Option<Answer> {
    let mut line = String::new();
    if stream.read_line(&mut line).unwrap_or(0) == 0 {
        return None;
    }
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(Answer { status, headers, body })
}

/// A folder of the shipped models.
pub(crate) fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(path)
}

/// The bytes of a shipped file.
pub(crate) fn shipped_file(path: &str) -> Vec<u8> {
    std::fs::read(shipped(path)).unwrap()
}

/// A request body for `digits`: one row.
pub(crate) fn digit() -> String {
    String::from_utf8(shipped_file("digits/request.json")).unwrap()
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Sends predictions on several connections without pause until it is told to stop.
pub(crate) struct Load {
    stop: Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<LoadReport>>,
}

/// What became of the requests of a [`Load`].
#[derive(Debug, Default)]
pub(crate) struct LoadReport {
    /// Answers by status.
    pub(crate) statuses: HashMap<u16, usize>,
    /// Answers by `tidegate-model-version`.
    pub(crate) versions: HashMap<String, usize>,
    /// Connections that broke off.
    pub(crate) broken: usize,
}

impl Load {
    /// `n_connections` connections that post `body` to `path`.
    pub(crate) fn start(address: SocketAddr, n_connections: usize, path: &str, body: &str) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let request = head("POST", path, &[], Some(body.len())) + body;
        let threads = (0..n_connections).map(|_| {
            let (stop, request) = (Arc::clone(&stop), request.clone());
            std::thread::spawn(move || {
                let mut report = LoadReport::default();
                let mut stream = BufReader::new(connect(address));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let sent = stream.get_mut().write_all(request.as_bytes());
                    let Some(answer) = sent.ok().and_then(|()| read_answer(&mut stream)) else {
                        report.broken += 1;
                        stream = BufReader::new(connect(address));
                        continue;
                    };
                    *report.statuses.entry(answer.status).or_default() += 1;
                    let version = answer.header("tidegate-model-version").to_owned();
                    *report.versions.entry(version).or_default() += 1;
                }
                report
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    /// Ends the load and adds up what its connections saw.
    pub(crate) fn stop(self) -> LoadReport {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut total = LoadReport::default();
        for thread in self.threads {
            let report = thread.join().unwrap();
            total.broken += report.broken;
            for (status, count) in report.statuses {
                *total.statuses.entry(status).or_default() += count;
            }
            for (version, count) in report.versions {
                *total.versions.entry(version).or_default() += count;
            }
        }
        total
    }
}

impl LoadReport {
    /// Panics unless every request was answered with 200, and there were some.
    pub(crate) fn assert_all_ok(&self) {
        assert_eq!(self.statuses.keys().collect::<Vec<_>>(), [&200], "{self:?}");
        assert_eq!(self.broken, 0, "{self:?}");
    }
}
