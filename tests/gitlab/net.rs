//! The ways to the server: proxies, and certificates of a company's own authority.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Desk;
use super::server::{Mood, Project, Server};

/// A pipeline without jobs.
fn green() -> Project {
    let mut project = Project::default();
    project.pipelines.insert(5, json!({"id": 5, "status": "success", "ref": "main"}));
    project.jobs.insert(5, Vec::new());
    project
}

#[test]
fn a_proxy_of_the_environment_is_used_and_its_exceptions_hold() {
    let (server, proxy) = (Server::start(green(), Mood::Well), Server::start(green(), Mood::Well));
    let desk = Desk::new(&server);
    let quiet = ("KMT_LOG", "error");
    let far = ("KMT_GITLAB_URL", "http://gitlab.example");
    let by = ("http_proxy", proxy.url.as_str());
    let said = desk.call(&["explain", "5"], &[quiet, far, by]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let asked = proxy.requests();
    assert!(
        !asked.is_empty() && asked.iter().all(|it| it.line.contains("http://gitlab.example/api/")),
        "{asked:?}"
    );
    let said = desk.call(&["explain", "5"], &[quiet, by, ("no_proxy", "127.0.0.1")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(proxy.requests().is_empty() && !server.requests().is_empty());
}

#[expect(clippy::disallowed_methods, reason = "openssl is a process")]
fn openssl(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn made(output: std::io::Result<Output>) {
    let output = output.expect("apt-get install openssl");
    assert!(output.status.success(), "{output:?}");
}

/// An HTTPS server of a company's own authority; dropped, it ends.
struct Private {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Private {
    fn start() -> Private {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
        let ca = ["-subj", "/CN=Company", "-keyout", "ca.key", "-out", "ca.pem"];
        made(openssl(at, &[new.as_slice(), &ca].concat()).output());
        let own = [
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-subj",
            "/CN=localhost",
            "-keyout",
            "own.key",
            "-out",
            "own.pem",
        ];
        let names =
            ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"];
        made(openssl(at, &[new.as_slice(), &own, &names].concat()).output());
        let project = at.join("api/v4/projects/Group%2Fagent/pipelines/5");
        fs::create_dir_all(&project).unwrap();
        for (name, body) in
            [("jobs?include_retried=true&per_page=100", json!([])), ("bridges?per_page=100", json!([]))]
        {
            answer(&project.join(name), &body);
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let number = port.to_string();
        let serve =
            ["s_server", "-quiet", "-HTTP", "-key", "own.key", "-cert", "own.pem", "-accept", &number];
        let child = openssl(at, &serve).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "openssl does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Private { folder, port, child }
    }
}

fn answer(path: &Path, body: &serde_json::Value) {
    fs::write(path, format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}")).unwrap();
}

#[test]
fn a_company_has_its_own_authority() {
    let server = Private::start();
    let desk = Desk::new(&Server::start(Project::default(), Mood::Well));
    let url = format!("https://localhost:{}", server.port);
    let quiet = ("KMT_LOG", "error");
    let wait = ["ci", "wait", "--pipeline", "5"];
    let said = desk.call(&wait, &[quiet, ("KMT_GITLAB_URL", &url)]);
    assert!(said.code == 103 && said.stderr.contains("certificate"), "{}", said.stderr);
    let ca = server.folder.path().join("ca.pem").to_str().unwrap().to_owned();
    for name in ["KMT_GITLAB_CA_FILE", "SSL_CERT_FILE"] {
        let said = desk.call(&wait, &[quiet, ("KMT_GITLAB_URL", &url), (name, &ca)]);
        // The pipeline itself is a folder of that server: whoever gets so far trusts it.
        assert!(!said.stderr.contains("certificate"), "{name}: {}", said.stderr);
    }
    let said = desk.call(&wait, &[quiet, ("KMT_GITLAB_URL", &url), ("KMT_GITLAB_CA_FILE", "/no/such.pem")]);
    assert!(said.code == 103 && said.stderr.contains("/no/such.pem"), "{}", said.stderr);
}
