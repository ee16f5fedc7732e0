//! `report.html` in a real headless Chromium: at two widths, in both colour schemes, by keyboard, without a network.
//!
//! Chromium is driven through chromedriver's WebDriver protocol, which is JSON over HTTP on loopback. With
//! `KMT_SHOTS=DIR` the screenshots are kept, to be looked at.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kmt_reporters::event::{
    Arch, CellId, Envelope, Event, OutputRef, PlannedShard, RunEnd, ShardEnd, TestResult,
};
use kmt_reporters::html::{Sources, text};
use kmt_reporters::model::Run;
use kmt_reporters::{Masks, NoOutput};
use serde_json::{Value, json};

/// A chromedriver, ended when dropped.
struct Driver {
    child: Child,
    port: u16,
}

impl Driver {
    fn start() -> Driver {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed (chromium-driver)");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("started successfully on port")).expect("it starts");
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        std::thread::spawn(move || lines.for_each(drop));
        Driver { child, port: digits.parse().unwrap() }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while answer.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut content = vec![0; length];
        answer.read_exact(&mut content).unwrap();
        let value: Value = serde_json::from_slice(&content).unwrap();
        assert!(value["value"]["error"].is_null(), "{method} {path}: {}", value["value"]);
        value["value"].clone()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A browser window.
struct Window<'d> {
    driver: &'d Driver,
    session: String,
}

impl<'d> Window<'d> {
    fn open(driver: &'d Driver, width: u32, dark: bool, page: &Path) -> Window<'d> {
        let scheme = if dark { 0 } else { 1 };
        let args = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--blink-settings=preferredColorScheme={scheme}"),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args, "mobileEmulation": {"deviceMetrics": {"width": width, "height": 900, "pixelRatio": 1.0}}},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }}});
        let session = driver.call("POST", "/session", &wanted)["sessionId"].as_str().unwrap().to_owned();
        let window = Window { driver, session };
        window.post("url", &json!({"url": format!("file://{}", page.display())}));
        window
    }

    fn post(&self, what: &str, body: &Value) -> Value {
        self.driver.call("POST", &format!("/session/{}/{what}", self.session), body)
    }

    /// Milliseconds from the start of loading until the page can be used: the best of three, since others use the machine.
    fn quickest(&self) -> u32 {
        let once = || {
            let ready = self.js("document.documentElement.dataset.ready");
            self.post("refresh", &json!({}));
            ready.as_str().unwrap().parse().unwrap()
        };
        [once(), once(), once()].into_iter().min().unwrap_or(u32::MAX)
    }

    /// What an expression in the page comes to.
    fn js(&self, expression: &str) -> Value {
        self.post("execute/sync", &json!({"script": format!("return ({expression})"), "args": []}))
    }

    /// Presses keys one after another; `\u{e007}` is Enter, `\u{e00c}` Escape, `\u{e015}` the arrow down.
    fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                let key = key.to_string();
                [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
            })
            .collect();
        self.post("actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}));
    }

    fn shot(&self, name: &str) {
        let Ok(folder) = std::env::var("KMT_SHOTS") else { return };
        let shot = self.driver.call("GET", &format!("/session/{}/screenshot", self.session), &Value::Null);
        std::fs::write(format!("{folder}/{name}.png.base64"), shot.as_str().unwrap()).unwrap();
    }

    /// Everything that was asked for but the page itself, and whatever the content policy refused.
    fn fetched(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({"type": "performance"}));
        let messages = log.as_array().unwrap().iter().map(|entry| {
            serde_json::from_str::<Value>(entry["message"].as_str().unwrap()).unwrap()["message"].clone()
        });
        let asked = messages.filter(|message| message["method"] == "Network.requestWillBeSent");
        let urls = asked.map(|message| message["params"]["request"]["url"].as_str().unwrap().to_owned());
        let others = urls.filter(|url| !url.ends_with("/report.html") && !url.starts_with("data:"));
        let console = self.post("se/log", &json!({"type": "browser"}));
        let complaints = console.as_array().unwrap().iter().map(|entry| entry["message"].to_string());
        others.chain(complaints).collect()
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.driver.call("DELETE", &format!("/session/{}", self.session), &Value::Null);
    }
}

/// A run of so many cells and tests: one test in twenty fails, one only below a kernel, and a machine panics.
fn run(cells: usize, tests: usize) -> Run {
    let mut run = Run::new();
    for (seq, event) in (0..).zip(facts(cells, tests)) {
        let time = chrono::DateTime::from_timestamp_millis(1_795_000_000_000 + seq as i64).unwrap();
        run.fold(&Envelope { schema: 1, seq, time, elapsed_ms: seq, event });
    }
    run
}

const PACKAGE: &str = "pkg/network/tracer";

fn cell(n: usize) -> CellId {
    CellId::local(format!("ubuntu_{n:02}.04"), format!("5.{n}"), Arch::X86_64)
}

fn facts(cells: usize, tests: usize) -> Vec<Event> {
    let mut facts = vec![Event::RunStarted {
        run: "20261122T170501Z-abcdef".to_owned(),
        version: "0.1.0".to_owned(),
        command: vec!["kmt-run".to_owned(), "run".to_owned()],
        component: "system-probe".to_owned(),
        stack: "main".to_owned(),
        test_failure_exit_code: 100,
        root: "/src/agent".to_owned(),
        format: String::new(),
    }];
    for n in 0..cells {
        let distro = "ubuntu".to_owned();
        facts.push(Event::CellSelected { cell: cell(n), distro, distro_version: format!("{n:02}.04") });
    }
    let shards = (0..cells).map(|n| PlannedShard { cell: cell(n), package: PACKAGE.to_owned() }).collect();
    facts.push(Event::PlanMade { shards });
    for n in 0..cells {
        let (machine, package) = (format!("m{n}"), PACKAGE.to_owned());
        facts.push(Event::MachineDefined { machine: machine.clone(), cell: cell(n) });
        facts.push(Event::ShardStarted { cell: cell(n), package, machine: machine.clone(), attempt: 1 });
        (0..tests).for_each(|t| facts.extend(test(n, t, n < cells / 2)));
        if n == 1 {
            let excerpt =
                ["[ 1.0] systemd[1]: up", "[ 2.0] Kernel panic - not syncing: sysrq triggered crash"];
            let excerpt = excerpt.map(str::to_owned).to_vec();
            let seen = kmt_reporters::event::LossEvidence::Panic;
            facts.push(Event::MachineLost { machine, cell: cell(n), seen, excerpt });
        }
        facts.push(Event::ShardFinished {
            cell: cell(n),
            package: PACKAGE.to_owned(),
            attempt: 1,
            end: if n == 1 { ShardEnd::MachineLost } else { ShardEnd::Exited },
            status: Some(1),
            duration_ms: 1,
            leaked: false,
            output: None,
        });
    }
    facts.push(Event::RunFinished { why: RunEnd::Completed });
    facts
}

/// Beginning and end of one test; the first fails on old kernels.
fn test(n: usize, t: usize, old: bool) -> [Event; 2] {
    let test = match t {
        0 => "TestRingBuffer".to_owned(),
        _ => format!("TestSuite/TestProtocol{:03}/case_{t}", t / 20),
    };
    let bad = if t == 0 { old } else { (t * 7 + n).is_multiple_of(20) };
    let begun =
        Event::TestStarted { cell: cell(n), package: PACKAGE.to_owned(), test: test.clone(), attempt: 1 };
    let ended = Event::TestFinished {
        cell: cell(n),
        package: PACKAGE.to_owned(),
        output: bad.then(|| OutputRef { file: test.clone(), offset: 0, length: 100 }),
        test,
        attempt: 1,
        result: if bad { TestResult::Fail } else { TestResult::Pass },
        duration_ms: 12,
        message: None,
    };
    [begun, ended]
}

#[test]
fn the_page_is_used_by_keyboard_at_two_widths_in_both_lights_and_fetches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let masks = Masks::default();
    let spelling = |cell: &CellId| Some(format!("{}-local-distro", cell.platform));
    let page =
        text(&run(60, 3_000), &Sources { output: &NoOutput, masks: &masks, spelling: &spelling }).unwrap();
    println!("the page has {} bytes", page.len());
    assert!(page.len() < 5_000_000);
    std::fs::write(&path, page).unwrap();
    let driver = Driver::start();
    for (width, dark) in [(1280, false), (1280, true), (400, false), (400, true)] {
        let name = format!("{width}-{}", if dark { "dark" } else { "light" });
        let window = Window::open(&driver, width, dark, &path);
        let ready = window.quickest();
        println!("{name}: ready after {ready} ms");
        assert!(ready < 1_000, "it took {ready} ms");
        window.shot(&format!("{name}-top"));
        assert_eq!(
            window.js("document.documentElement.scrollWidth <= innerWidth"),
            true,
            "{name}: it is too wide"
        );
        let light = window.js("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] > 128");
        assert_eq!(light, !dark, "{name}: the colour scheme");
        assert_eq!(
            window.js("document.querySelector('#boundaries strong').textContent"),
            "fails on kernel < 5.30"
        );
        steps(&window, &name);
        assert_eq!(window.fetched(), Vec::<String>::new(), "{name}: something was fetched or refused");
    }
}

/// Search, filter, move, open, close, help and theme, by keys alone.
fn steps(window: &Window<'_>, name: &str) {
    const ROWS: &str = "document.querySelector('#matrix .note').textContent";
    let rows = || window.js(ROWS).as_str().unwrap().split(' ').next().unwrap().replace(',', "");
    window.press("f");
    // All tests, and the package that ended with its machine.
    assert_eq!(rows(), "3001", "{name}: all rows");
    window.press("/ringb");
    assert_eq!(rows(), "1", "{name}: search");
    window.press("\u{e007}");
    assert_eq!(window.js("document.activeElement.getAttribute('role')"), "grid", "{name}");
    window.shot(&format!("{name}-matrix"));
    window.press("\u{e007}");
    assert_eq!(window.js("document.querySelector('.drawer').hidden"), false, "{name}: Enter opens");
    assert_eq!(window.js("document.querySelector('.drawer h2').textContent"), "TestRingBuffer");
    let command = window.js("document.querySelector('.command code').textContent");
    let wanted = "kmt-run -C /src/agent run --vms ubuntu_00.04-local-distro --packages ./pkg/network/tracer --run \
                  '^TestRingBuffer$'";
    assert_eq!(command, wanted, "{name}: how to run it again");
    window.shot(&format!("{name}-open"));
    window.press("\u{e00c}");
    assert_eq!(window.js("document.querySelector('.drawer').hidden"), true, "{name}: Escape closes");
    window.press("/\u{e00c}");
    window.press("n\u{e015}");
    assert_ne!(window.js("document.querySelector('.cell.at') !== null"), false, "{name}: a place is marked");
    window.press("?");
    assert_eq!(window.js("document.querySelector('dialog').open"), true, "{name}: help");
    window.press("\u{e00c}t");
    let before = if name.ends_with("dark") { "light" } else { "dark" };
    assert_eq!(window.js("document.documentElement.dataset.theme"), before, "{name}: theme");
    window.js("document.querySelector('#machines').scrollIntoView()");
    window.shot(&format!("{name}-machines"));
    let marked = window.js("document.querySelector('#consoles .guilty').textContent");
    assert!(marked.as_str().unwrap().contains("Kernel panic"), "{name}: {marked}");
}
