//! A GitLab as strict as the real one: pages of 20, `Link` headers, keyset listings, rate limits, artifacts on another
//! port that refuses whoever shows it a token; and as unreliable: now and then 502, a broken body, a reset.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// The only token that opens it.
pub(crate) const TOKEN: &str = "glpat-do-not-show-me-0123456789";
/// Most rows of a page, whatever is asked for.
const PAGE: usize = 20;

/// What it serves.
#[derive(Default)]
pub(crate) struct Project {
    /// By number.
    pub(crate) pipelines: BTreeMap<u64, Value>,
    /// Jobs by pipeline, with those that were retried.
    pub(crate) jobs: BTreeMap<u64, Vec<Value>>,
    /// Bridges by pipeline.
    pub(crate) bridges: BTreeMap<u64, Vec<Value>>,
    /// Artifacts by job and path; the trace by the path `trace`.
    pub(crate) files: HashMap<(u64, String), Vec<u8>>,
}

/// How it behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers what is asked.
    Well,
    /// Some first answers are 502, cut, or none; every 50th request is one too many.
    Unreliable,
    /// A proxy answers pages to sign in.
    Proxy,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Whether the storage was asked.
    pub(crate) storage: bool,
    /// Method and target.
    pub(crate) line: String,
    /// All headers.
    pub(crate) headers: String,
    /// Status of the answer; 0 where the connection was dropped.
    pub(crate) status: u16,
}

/// A running server.
pub(crate) struct Server {
    /// Where it is.
    pub(crate) url: String,
    state: Arc<State>,
}

struct State {
    project: Project,
    mood: Mood,
    storage: String,
    requests: Mutex<Vec<Request>>,
    /// How often each target was asked for.
    asked: Mutex<HashMap<String, u32>>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes that are sent of the body.
    sent: usize,
}

impl Server {
    /// Starts one; it ends with the test.
    pub(crate) fn start(project: Project, mood: Mood) -> Server {
        let (api, storage) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let url = format!("http://{}", api.local_addr().unwrap());
        let state = Arc::new(State {
            project,
            mood,
            storage: format!("http://{}", storage.local_addr().unwrap()),
            requests: Mutex::default(),
            asked: Mutex::default(),
        });
        for (listener, is_storage) in [(api, false), (storage, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || state.serve(stream, is_storage));
                }
            });
        }
        Server { url, state }
    }

    /// What was asked so far; forgotten afterwards.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.state.requests.lock().unwrap())
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream, storage: bool) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut headers) = (String::new(), String::new());
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 || header == "\r\n" {
                break;
            }
            headers.push_str(&header.to_ascii_lowercase().replace(&TOKEN.to_ascii_lowercase(), TOKEN));
        }
        let line = line.trim_end_matches(" HTTP/1.1\r\n").to_owned();
        let answer = self.answer(&line, &headers, storage);
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        self.requests.lock().unwrap().push(Request { storage, line, headers, status });
        // Dropped without an answer: a reset.
        let Some(answer) = answer else { return };
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
        answer.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += &format!("Content-Length: {}\r\n\r\n", answer.body.len());
        let _ =
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer.body[..answer.sent]));
        let _ = stream.flush();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 16]);
    }

    fn answer(&self, line: &str, headers: &str, storage: bool) -> Option<Answer> {
        let times = {
            let mut asked = self.asked.lock().unwrap();
            let times = asked.entry(line.to_owned()).or_default();
            *times += 1;
            *times
        };
        if self.mood == Mood::Proxy {
            return Some(html(200, "Please sign in to the corporate proxy"));
        }
        if self.mood == Mood::Unreliable && times == 1 {
            // By the target, so that every run has the same troubles.
            match line.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)))
                % 11
            {
                3 => return Some(html(502, "502 Bad Gateway")),
                5 => return None,
                7 => {
                    let whole = self.right(line, headers, storage);
                    return Some(Answer { sent: whole.body.len() / 2, ..whole });
                }
                9 if !storage => {
                    let mut answer = json_answer(429, &json!({"message": "Too Many Requests"}));
                    answer.headers.push(("Retry-After".to_owned(), "1".to_owned()));
                    return Some(answer);
                }
                _ => {}
            }
        }
        Some(self.right(line, headers, storage))
    }

    fn right(&self, line: &str, headers: &str, storage: bool) -> Answer {
        let (method, target) = line.split_once(' ').unwrap_or_default();
        // A proxy is asked for whole addresses.
        let target = target.strip_prefix("http://gitlab.example").unwrap_or(target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if storage {
            if headers.contains("token") || headers.contains("authorization") || !query.contains("signature=")
            {
                return html(400, "InvalidArgument: only one auth mechanism allowed");
            }
            return self.stored(path);
        }
        if !headers.lines().any(|header| header == format!("private-token: {TOKEN}")) {
            return json_answer(401, &json!({"message": "401 Unauthorized"}));
        }
        let Some(rest) = path.strip_prefix("/api/v4/projects/Group%2Fagent/") else {
            return json_answer(404, &json!({"message": "404 Project Not Found"}));
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let number = parts.get(1).and_then(|id| id.parse().ok()).unwrap_or(0_u64);
        if method == "POST" {
            return self.posted(&parts, number);
        }
        let found = match parts.as_slice() {
            ["pipelines"] => {
                let newest =
                    self.project.pipelines.values().next_back().filter(|_| query.contains("ref=main"));
                Some(json_answer(200, &json!(newest.into_iter().collect::<Vec<_>>())))
            }
            ["pipelines", _] => {
                self.project.pipelines.get(&number).map(|pipeline| json_answer(200, pipeline))
            }
            ["pipelines", _, "jobs"] if query.contains("include_retried=true") => {
                self.project.jobs.get(&number).map(|jobs| self.by_offset(jobs, path, query))
            }
            ["pipelines", _, "bridges"] => {
                let bridges = self.project.bridges.get(&number).cloned().unwrap_or_default();
                Some(self.by_key(&bridges, path, query))
            }
            ["jobs", _, "trace"] => Some(self.redirect(&format!("/{number}/trace"))),
            ["jobs", _, "artifacts", file @ ..] if !file.is_empty() => {
                let file = file.join("/");
                let known = self.project.files.contains_key(&(number, file.clone()));
                known.then(|| self.redirect(&format!("/{number}/{file}")))
            }
            _ => None,
        };
        found.unwrap_or_else(|| json_answer(404, &json!({"message": "404 Not Found"})))
    }

    /// Retries and cancels: what is in no state for it is refused as GitLab does.
    fn posted(&self, parts: &[&str], number: u64) -> Answer {
        let jobs = self.project.jobs.values().flatten();
        let job = jobs.into_iter().find(|job| job["id"] == number).cloned();
        let (Some(mut job), [_, _, what]) = (job, parts) else {
            return json_answer(404, &json!({"message": "404 Not Found"}));
        };
        let status = job["status"].as_str().unwrap_or_default().to_owned();
        let done = ["success", "failed", "canceled"].contains(&status.as_str());
        match (*what, done) {
            ("retry", true) => {
                job["id"] = json!(number + 5_000_000);
                job["status"] = json!("pending");
                json_answer(201, &job)
            }
            ("cancel", false) => {
                job["status"] = json!("canceled");
                json_answer(201, &job)
            }
            _ => json_answer(403, &json!({"message": "403 Forbidden - Job is not retryable"})),
        }
    }

    fn stored(&self, path: &str) -> Answer {
        let (job, file) = path[1..].split_once('/').unwrap_or_default();
        let body = self.project.files.get(&(job.parse().unwrap_or(0), file.to_owned()));
        // A trace always exists, perhaps empty.
        let body = body.cloned().unwrap_or_default();
        let kind = ("Content-Type".to_owned(), "application/octet-stream".to_owned());
        Answer { status: 200, headers: vec![kind], sent: body.len(), body }
    }

    fn redirect(&self, path: &str) -> Answer {
        let mut answer = html(302, "moved");
        answer.headers.push(("Location".to_owned(), format!("{}{path}?signature=abc", self.storage)));
        answer
    }

    /// A page by number, as listings of jobs have them.
    fn by_offset(&self, rows: &[Value], path: &str, query: &str) -> Answer {
        let page = value(query, "page").unwrap_or(1).max(1);
        let size = value(query, "per_page").unwrap_or(PAGE).min(PAGE);
        let from = ((page - 1) * size).min(rows.len());
        let to = (from + size).min(rows.len());
        let mut answer = json_answer(200, &json!(rows[from..to]));
        let next = (to < rows.len()).then(|| page + 1);
        answer.headers.push(("X-Next-Page".to_owned(), next.map(|n| n.to_string()).unwrap_or_default()));
        if let Some(next) = next {
            let rest = "include_retried=true&per_page=20";
            let links =
                format!("<{0}?{rest}&page=1>; rel=\"first\", <{0}?{rest}&page={next}>; rel=\"next\"", path);
            answer.headers.push(("Link".to_owned(), links));
        }
        answer
    }

    /// A page by cursor: only the `Link` header says where the next is.
    fn by_key(&self, rows: &[Value], path: &str, query: &str) -> Answer {
        let after = value(query, "cursor").unwrap_or(0);
        let to = (after + 1).min(rows.len());
        let mut answer = json_answer(200, &json!(rows[after.min(to)..to]));
        if to < rows.len() {
            let link = format!("<{path}?pagination=keyset&per_page=1&cursor={to}>; rel=\"next\"");
            answer.headers.push(("Link".to_owned(), link));
        }
        answer
    }
}

fn value(query: &str, key: &str) -> Option<usize> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

fn json_answer(status: u16, value: &Value) -> Answer {
    let body = value.to_string().into_bytes();
    let kind = ("Content-Type".to_owned(), "application/json".to_owned());
    Answer { status, headers: vec![kind], sent: body.len(), body }
}

fn html(status: u16, title: &str) -> Answer {
    let body = format!("<html><head><title>{title}</title></head><body></body></html>").into_bytes();
    let kind = ("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned());
    Answer { status, headers: vec![kind], sent: body.len(), body }
}
