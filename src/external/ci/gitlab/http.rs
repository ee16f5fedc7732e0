//! One request and its repetitions: the only place that repeats, and the only one that knows the token.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::super::{Cost, Fetched};
use super::refusal;
use super::writer::Writer;
use crate::external::{Class, Error, Result};
use crate::settings::ci::{Access, TokenKind};

/// Requests at once.
const PARALLEL: usize = 8;
/// How often a request is sent, at most.
const ATTEMPTS: u32 = 5;
/// First pause before a repetition; the next is twice as long.
const PAUSE: Duration = Duration::from_millis(400);
/// Longest pause that a server may ask for.
const LONGEST: Duration = Duration::from_secs(120);
/// Longest answer that is not a download, bytes.
const ANSWER: usize = 32 << 20;
/// Redirections that are followed.
const REDIRECTIONS: usize = 5;

/// The client of one server.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    base: Url,
    token: Option<(HeaderName, HeaderValue)>,
    kind: Option<TokenKind>,
    permits: Semaphore,
    requests: AtomicU64,
    repeated: AtomicU64,
    bytes: AtomicU64,
}

/// An answer that is not a download.
#[derive(Debug)]
pub(super) struct Answer {
    headers: HeaderMap,
    /// Its body.
    pub(super) body: Vec<u8>,
}

/// How often something was asked.
#[derive(Debug, Default)]
struct Round {
    number: u32,
}

/// Why a request came to nothing.
enum Trouble {
    /// It may go better later, after that long if the server said so.
    Again(Box<Error>, Option<Duration>),
    /// It will not.
    Final(Box<Error>),
}

/// It may go better later.
fn later(error: Error, after: Option<Duration>) -> Trouble {
    Trouble::Again(Box::new(error), after)
}

/// It will not go better.
fn fatal(error: Error) -> Trouble {
    Trouble::Final(Box::new(error))
}

/// Who asks for what, for the words of an error.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What is done.
    pub(super) operation: &'static str,
    /// To what.
    pub(super) subject: &'a str,
}

impl Asked<'_> {
    fn error(self, class: Class, detail: impl std::fmt::Display) -> Error {
        Error::new("gitlab", self.operation, self.subject, class, detail)
    }

    /// A failure of the network; the URL in it may be signed, and is left out.
    fn network(self, error: &reqwest::Error) -> Trouble {
        let what = if error.is_timeout() {
            "it did not answer in time"
        } else if error.is_connect() {
            "it cannot be reached"
        } else {
            "the connection broke"
        };
        let mut root = std::error::Error::source(error);
        while let Some(deeper) = root.and_then(std::error::Error::source) {
            root = Some(deeper);
        }
        let cause = root.map_or(String::new(), |root| format!(": {root}"));
        later(self.error(Class::Unreachable, format!("{what}{cause}")), None)
    }
}

/// Certificates that are trusted besides the system's.
fn authorities(access: &Access, asked: Asked<'_>) -> Result<Vec<Certificate>> {
    let Some(ca) = &access.ca else { return Ok(Vec::new()) };
    let refuse = |why: String| {
        let what = format!("the certificates of `{}` ({}) cannot be used", ca.value.display(), ca.origin);
        asked.error(Class::Rejected, format!("{what}: {why}"))
    };
    let bytes = std::fs::read(&ca.value).map_err(|error| refuse(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&bytes).map_err(|error| refuse(error.to_string()))?;
    if found.is_empty() { Err(refuse("there are none in it".to_owned())) } else { Ok(found) }
}

impl Http {
    /// A client for the API at `base`.
    ///
    /// # Errors
    /// The token has characters that no header has, or TLS cannot begin.
    pub(super) fn new(base: Url, access: &Access) -> Result<Http> {
        let asked = Asked { operation: "use", subject: base.as_str() };
        // Whoever came first has installed one: all the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .tls_certs_merge(authorities(access, asked)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .user_agent(concat!("kmt-run/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| asked.error(Class::Rejected, error))?;
        let mut token = None;
        if let Some(given) = &access.token {
            let mut value = HeaderValue::from_str(given.secret.value.expose()).map_err(|_| {
                asked.error(Class::Rejected, format!("the token of {} is none", given.secret.origin))
            })?;
            value.set_sensitive(true);
            token = Some((HeaderName::from_static(given.kind.header()), value));
        }
        let zero = || AtomicU64::new(0);
        let kind = access.token.as_ref().map(|given| given.kind);
        let permits = Semaphore::new(PARALLEL);
        Ok(Http { client, base, token, kind, permits, requests: zero(), repeated: zero(), bytes: zero() })
    }

    /// An address below the API's.
    pub(super) fn join(&self, rest: &str) -> Result<Url> {
        let asked = Asked { operation: "use", subject: rest };
        self.base.join(rest).map_err(|error| asked.error(Class::Rejected, error))
    }

    pub(super) fn cost(&self) -> Cost {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Cost { requests: of(&self.requests), repeated: of(&self.repeated), bytes: of(&self.bytes) }
    }

    /// Asks, again if need be, for an answer in JSON.
    pub(super) async fn json(
        &self,
        method: Method,
        url: Url,
        operation: &'static str,
        subject: &str,
    ) -> Result<Answer> {
        let asked = Asked { operation, subject };
        let mut round = Round::default();
        loop {
            // The permit is given back before a pause.
            let tried = {
                let _permit = self.permits.acquire().await;
                self.answer(&method, &url, asked).await
            };
            match tried {
                Ok(answer) => return Ok(answer),
                Err(trouble) => self.again(&mut round, &method, trouble).await?,
            }
        }
    }

    /// Asks, again if need be, for a file. What is at `to` is whole, or cut at the limit.
    pub(super) async fn download(&self, url: Url, subject: &str, to: &Path, limit: u64) -> Result<Fetched> {
        let asked = Asked { operation: "download", subject };
        let part = to.with_extension("part");
        let mut round = Round::default();
        let done = loop {
            let tried = {
                let _permit = self.permits.acquire().await;
                self.file(&url, asked, &part, limit).await
            };
            match tried {
                Ok(fetched) => break Ok(fetched),
                Err(trouble) => {
                    if let Err(error) = self.again(&mut round, &Method::GET, trouble).await {
                        break Err(error);
                    }
                }
            }
        };
        match done {
            Ok(fetched) => {
                let moved = tokio::fs::rename(&part, to).await;
                moved.map_err(|e| Error::io("file system", "write", to.display().to_string(), &e))?;
                Ok(fetched)
            }
            Err(error) => {
                // There may be none.
                let _ = tokio::fs::remove_file(&part).await;
                Err(error)
            }
        }
    }

    /// One answer in JSON.
    async fn answer(
        &self,
        method: &Method,
        url: &Url,
        asked: Asked<'_>,
    ) -> std::result::Result<Answer, Trouble> {
        let response = self.send(method, url, asked).await?;
        let headers = response.headers().clone();
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| asked.network(&error))?;
            self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            body.extend_from_slice(&piece);
            if body.len() > ANSWER {
                return Err(fatal(asked.error(Class::Unintelligible, "the answer has no end")));
            }
        }
        let is_json = |kind: &HeaderValue| kind.to_str().is_ok_and(|kind| kind.contains("json"));
        if !headers.get(CONTENT_TYPE).is_some_and(is_json) {
            return Err(fatal(refusal::no_json(asked, &body)));
        }
        // A body that was cut by a proxy is whole by its own account.
        if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
            let error = asked.error(Class::Unintelligible, "the answer is no whole JSON");
            return Err(later(error, None));
        }
        Ok(Answer { headers, body })
    }

    /// One download to `part`.
    async fn file(
        &self,
        url: &Url,
        asked: Asked<'_>,
        part: &Path,
        limit: u64,
    ) -> std::result::Result<Fetched, Trouble> {
        let response = self.send(&Method::GET, url, asked).await?;
        let told = |error: std::io::Error| {
            fatal(Error::io("file system", "write", part.display().to_string(), &error))
        };
        let mut file = Writer::create(part).await.map_err(told)?;
        let (mut bytes, mut cut) = (0, false);
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| asked.network(&error))?;
            self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            let room = usize::try_from(limit - bytes).unwrap_or(usize::MAX).min(piece.len());
            file.write(piece.slice(..room)).await.map_err(told)?;
            bytes += room as u64;
            if room < piece.len() {
                cut = true;
                break;
            }
        }
        file.end().await.map_err(told)?;
        Ok(Fetched { bytes, cut })
    }

    /// Waits until it may be asked again.
    ///
    /// # Errors
    /// It was asked often enough, or will not go better.
    async fn again(&self, round: &mut Round, method: &Method, trouble: Trouble) -> Result<()> {
        round.number += 1;
        let (error, wanted) = match trouble {
            Trouble::Final(error) => return Err(*error),
            Trouble::Again(error, wanted) => (*error, wanted),
        };
        // What changes something is repeated only where it was surely not done.
        let sure = *method == Method::GET || error.class == Class::Busy;
        let pause = wanted.unwrap_or_else(|| jittered(PAUSE * 2_u32.pow(round.number - 1)));
        if !sure || round.number == ATTEMPTS || pause > LONGEST {
            let detail = format!("{} (asked {} times)", error.detail, round.number);
            return Err(if round.number > 1 { Error { detail, ..error } } else { error });
        }
        tracing::debug!(%error, ?pause, "ask again");
        self.repeated.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Sends once, and follows redirections: the token goes to the server's own origin and nowhere else.
    async fn send(
        &self,
        method: &Method,
        url: &Url,
        asked: Asked<'_>,
    ) -> std::result::Result<Response, Trouble> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTIONS {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let mut request = self.client.request(method.clone(), url.clone());
            let own = url.origin() == self.base.origin();
            if let Some((name, value)) = self.token.as_ref().filter(|_| own) {
                request = request.header(name.clone(), value.clone());
            }
            let response = request.send().await.map_err(|error| asked.network(&error))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if !status.is_redirection() {
                return Err(self.refused(response, asked, own).await);
            }
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let Some(to) = to.and_then(|to| url.join(to).ok()).filter(|_| *method == Method::GET) else {
                return Err(fatal(asked.error(Class::Unintelligible, format!("it answered {status}"))));
            };
            if to.path().ends_with("/users/sign_in") {
                return Err(fatal(refusal::sign_in(asked, self.kind)));
            }
            url = to;
        }
        Err(fatal(asked.error(Class::Unintelligible, "it redirects for ever")))
    }

    async fn refused(&self, response: Response, asked: Asked<'_>, own: bool) -> Trouble {
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(Ok(piece)) = stream.next().await {
            body.extend_from_slice(&piece);
            if body.len() > 1 << 16 {
                break;
            }
        }
        let said = refusal::words(&body);
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                let asks =
                    after.map_or(String::new(), |after| format!(", asks to wait {} s", after.as_secs()));
                let error = asked.error(Class::Busy, format!("too many requests{asks}"));
                later(error.hint("try again later"), after)
            }
            status if status.is_server_error() => {
                later(asked.error(Class::Unreachable, format!("it answered {status}{said}")), after)
            }
            status => fatal(refusal::of(asked, status, &said, own.then_some(self.kind))),
        }
    }
}

impl Answer {
    /// Where the next page is, by the `Link` header.
    pub(super) fn next_link(&self, from: &Url) -> Option<Url> {
        let links = self.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        let next = links.flat_map(|text| text.split(',')).find(|link| link.contains("rel=\"next\""))?;
        from.join(next.split_once('<')?.1.split_once('>')?.0).ok()
    }

    /// The number of the next page, by the header of listings with offsets.
    pub(super) fn next_page(&self) -> Option<u64> {
        self.headers.get("x-next-page")?.to_str().ok()?.trim().parse().ok()
    }
}

impl TokenKind {
    fn header(self) -> &'static str {
        match self {
            TokenKind::Access => "private-token",
            TokenKind::Job => "job-token",
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// It is not what this call answers.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], operation: &'static str, subject: &str) -> Result<T> {
    let asked = Asked { operation, subject };
    serde_json::from_slice(body).map_err(|error| asked.error(Class::Unintelligible, error))
}

/// Between half of it and the whole.
fn jittered(pause: Duration) -> Duration {
    let random = u32::from_le_bytes(uuid::Uuid::new_v4().as_bytes()[..4].try_into().unwrap_or_default());
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}
